#include "runtime/payload.h"

#include <algorithm>
#include <string>

namespace prism {

Task<Result<Bytes>> Payload::peek(Context context, std::size_t n) {
  if (source_ == nullptr || buffered_.size() >= n) co_return buffered_.slice(0, n);
  std::string joined(buffered_.view());
  while (joined.size() < n) {
    auto piece = co_await source_->next(context, n - joined.size());
    if (!piece) co_return std::unexpected(std::move(piece).error());
    if (piece->empty()) {
      source_.reset();
      size_ = joined.size();
      break;
    }
    if (joined.empty() && piece->size() >= n) {
      buffered_ = std::move(*piece);
      co_return buffered_.slice(0, n);
    }
    joined.append(piece->view());
  }
  buffered_ = Bytes(std::move(joined));
  co_return buffered_.slice(0, n);
}

Task<Result<Bytes>> Payload::next(Context context, std::size_t max) {
  if (!buffered_.empty()) {
    Bytes out = buffered_.slice(0, max);
    buffered_ = buffered_.slice(out.size());
    co_return out;
  }
  if (source_ == nullptr) co_return Bytes();
  auto piece = co_await source_->next(std::move(context), max);
  if (!piece || piece->empty()) source_.reset();
  co_return piece;
}

Task<Result<Bytes>> Payload::collect(Context context, std::size_t limit) {
  const auto too_large = [&](const std::string& what) {
    return fail(Code::invalid_argument, "PAYLOAD_TOO_LARGE",
                "the payload has " + what + " bytes; at most " + std::to_string(limit) + " fit here");
  };
  if (source_ == nullptr) {
    if (buffered_.size() > limit) co_return too_large(std::to_string(buffered_.size()));
    co_return std::exchange(buffered_, Bytes());
  }
  if (size_ && *size_ > limit) co_return too_large(std::to_string(*size_));
  std::string all(buffered_.view());
  buffered_ = Bytes();
  if (size_) all.reserve(static_cast<std::size_t>(*size_));
  while (source_ != nullptr) {
    auto piece = co_await source_->next(
        context, std::max<std::size_t>(1, std::min<std::size_t>(limit - all.size() + 1, 1 << 20)));
    if (!piece) co_return std::unexpected(std::move(piece).error());
    if (piece->empty()) {
      source_.reset();
      break;
    }
    all.append(piece->view());
    if (all.size() > limit) {
      source_.reset();
      co_return too_large("more than " + std::to_string(limit));
    }
  }
  co_return Bytes(std::move(all));
}

}  // namespace prism
