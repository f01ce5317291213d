#include "backends/s3/upload.h"

#include <algorithm>
#include <cstdio>

#include "backends/s3/checksum.h"
#include "base/crc32c.h"
#include "base/ids.h"

namespace prism::s3 {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kAsked = 256UL << 10;    // of the payload at once
constexpr std::size_t kSmall = 16UL << 10;     // pieces below it are put together
constexpr std::size_t kTogether = 64UL << 10;  // into ones of this size
constexpr std::size_t kMiB = 1UL << 20;
constexpr std::size_t kMaxParts = 10'000;
constexpr std::uint64_t kMaxObject = 5ULL << 40;
constexpr auto kGrace = 10s;  // for what is finished though nobody waits for it

}  // namespace

Upload::Upload(ObjectStore& store, std::string key, Payload payload, PutOptions options)
    : store_(store),
      client_(*store.client_),
      key_(std::move(key)),
      payload_(std::move(payload)),
      options_(std::move(options)),
      name_(uuid7()),
      announced_(payload_.size()),
      sent_(client_.loop()) {}

std::size_t Upload::part_size(std::size_t number) const noexcept {
  const auto usual = static_cast<std::size_t>(client_.options().part_size);
  if (announced_) {
    const std::uint64_t needed = (*announced_ + kMaxParts - 1) / kMaxParts;
    return std::max<std::size_t>(usual, (needed + kMiB - 1) / kMiB * kMiB);
  }
  // Of a payload whose size is not known: the usual ones to the 4000th, then as large as half of the budget allows.
  const std::size_t largest = std::max(usual, std::min<std::size_t>(store_.budget_->limit() / 2, 1UL << 30));
  return number <= kMaxParts * 2 / 5 ? usual : largest;
}

Task<Result<ObjectInfo>> Upload::run(Context context) {
  PRISM_CO_TRY(headers_, meta_headers(options_));
  headers_.emplace_back(kPutHeader, name_);
  if (announced_ && *announced_ > kMaxObject) {
    co_return fail(Code::invalid_argument, "PAYLOAD_TOO_LARGE",
                   "the payload has " + std::to_string(*announced_) + " bytes; S3 stores objects of at most 5 TiB");
  }
  if (streamed()) co_return co_await put_parts(std::move(context), std::nullopt);
  Chunk first;
  const std::size_t size = part_size(1);
  const auto held = static_cast<std::size_t>(std::min<std::uint64_t>(size, announced_.value_or(size)));
  PRISM_CO_TRY(first.lease, co_await store_.budget_->acquire(context, std::max<std::size_t>(held, 1)));
  PRISM_CO_CHECK(co_await fill(context, &first, size));
  co_await resume_on(client_.loop());
  if (first.last) co_return co_await put_whole(std::move(context), std::move(first));
  co_return co_await put_parts(std::move(context), std::move(first));
}

bool Upload::streamed() const noexcept {
  return announced_ && *announced_ > part_size(1) && part_size(1) > store_.budget_->limit() / 2;
}

void Upload::count(std::string_view bytes, std::uint32_t* crc) {
  total_ += bytes.size();
  crc_ = crc32c(crc_, bytes);
  *crc = crc32c(*crc, bytes);
}

Error Upload::size_mismatch(bool ended) const {
  return {Code::invalid_argument,
          "PAYLOAD_SIZE_MISMATCH",
          "the payload of '" + key_ + "' has " + (ended ? "" : "more than ") + std::to_string(total_) +
              " bytes; it was announced with " + std::to_string(*announced_),
          {},
          Retry::never,
          {},
          {}};
}

Task<Result<void>> Upload::fill(Context context, Chunk* chunk, std::size_t size) {
  std::string together;
  while (chunk->size < size) {
    PRISM_CO_TRY(Bytes piece, co_await payload_.next(context, std::min(kAsked, size - chunk->size)));
    if (piece.empty()) {
      chunk->last = true;
      break;
    }
    chunk->size += piece.size();
    count(piece.view(), &chunk->crc);
    if (announced_ && total_ > *announced_) break;
    if (piece.size() < kSmall) {
      if (together.empty()) together.reserve(std::min(kTogether, size));
      together += piece.view();
      if (together.size() < kTogether) continue;
      piece = Bytes(std::exchange(together, {}));
    } else if (!together.empty()) {
      chunk->pieces.emplace_back(std::exchange(together, {}));
    }
    chunk->pieces.push_back(std::move(piece));
  }
  if (!together.empty()) chunk->pieces.emplace_back(std::move(together));
  if (!chunk->last) {
    PRISM_CO_TRY(const Bytes more, co_await payload_.peek(context, 1));
    chunk->last = more.empty();
  }
  if (announced_ && (total_ > *announced_ || (chunk->last ? total_ < *announced_ : total_ == *announced_)))
    co_return fail(size_mismatch(chunk->last));
  co_return Result<void>();
}

HeaderList Upload::conditions() const {
  HeaderList out;
  if (options_.if_absent) out.emplace_back("if-none-match", "*");
  if (!options_.if_match.empty()) out.emplace_back("if-match", "\"" + options_.if_match + "\"");
  return out;
}

ObjectInfo Upload::info(const HttpHead& head, std::string etag) const {
  const std::string* const date = head.find("date");
  return {.key = key_,
          .etag = std::move(etag),
          .size = total_,
          .crc32c = crc_,
          .modified = date != nullptr ? http_time(*date) : wall_now(),
          .content_type = options_.content_type,
          .metadata = options_.metadata};
}

Task<Result<ObjectInfo>> Upload::refused(Context context, Error error) {
  const bool conditional = options_.if_absent || !options_.if_match.empty();
  const bool condition =
      error.reason == "PRECONDITION_FAILED" || (error.reason == "OBJECT_NOT_FOUND" && !options_.if_match.empty());
  const bool lost = error.retry == Retry::unknown_outcome || error.reason == "UPLOAD_ABORTED" || condition;
  if (lost && !context.stopped()) {
    // Read back under a time of its own: whether it has happened is worth more than the answer's speed.
    auto found = co_await client_.call(context.shielded(kGrace), Call{.method = "HEAD",
                                                                      .bucket = store_.bucket_,
                                                                      .key = key_,
                                                                      .headers = {{"x-amz-checksum-mode", "ENABLED"}},
                                                                      .read_only = true});
    if (found) {
      Stored stored = stored_of(key_, found->head);
      if (stored.put == name_) {
        stored.info.crc32c = crc_;
        co_return std::move(stored.info);
      }
    }
  }
  if (condition && conditional) {
    if (options_.if_absent)
      co_return fail(Code::already_exists, "OBJECT_EXISTS", "there is an object '" + key_ + "' already");
    co_return fail(Code::failed_precondition, "PRECONDITION_FAILED",
                   "the object '" + key_ + "' is not the one of the etag");
  }
  co_return fail(std::move(error));
}

Task<Result<ObjectInfo>> Upload::put_whole(Context context, Chunk chunk) {
  Call call{.method = "PUT",
            .bucket = store_.bucket_,
            .key = key_,
            .headers = std::move(headers_),
            .body = std::move(chunk.pieces)};
  call.headers.emplace_back(kCrcHeader, crc_text(chunk.crc));
  for (auto& condition : conditions()) call.headers.push_back(std::move(condition));
  const bool checked = store_.whole_checksums_.load(std::memory_order_relaxed);
  Call with_checksum = call;
  if (checked) with_checksum.headers.emplace_back("x-amz-checksum-crc32c", checksum_text(chunk.crc));
  auto answer = co_await client_.call(context, std::move(with_checksum));
  if (!answer && checked && answer.error().reason == "STORAGE_UNSUPPORTED") {
    answer = co_await client_.call(context, std::move(call));
    if (answer) store_.whole_checksums_.store(false, std::memory_order_relaxed);
  }
  if (!answer) co_return co_await refused(std::move(context), std::move(answer).error());
  const std::string* const etag = answer->head.find("etag");
  co_return info(answer->head, etag != nullptr ? without_quotes(*etag) : "");
}

Task<Result<ObjectInfo>> Upload::put_parts(Context context, std::optional<Chunk> first) {
  // One part that fails stops the others.
  const auto forward = [this] { stop_.request_stop(); };
  std::optional<std::stop_callback<decltype(forward)>> on_stop(std::in_place, context.stop(), forward);
  const Context stoppable = context.with_stop(stop_.get_token());
  auto sent = first ? co_await send_all(stoppable, std::move(*first)) : co_await stream_all(stoppable);
  on_stop.reset();
  if (sent && context.stopped()) sent = fail(context.over(false));
  if (!sent) {
    if (context.stopped()) sent = fail(context.over(false));
    if (!id_.empty()) co_await abort();
    co_return fail(std::move(sent).error());
  }
  auto completed = co_await complete(context.shielded(kGrace + client_.options().timeouts.operation));
  if (!completed && completed.error().retry != Retry::unknown_outcome) co_await abort();
  const std::lock_guard lock(store_.mutex_);
  store_.uploads_.erase(id_);
  co_return completed;
}

Task<Result<void>> Upload::begin(Context context) {
  if (context.stopped()) co_return fail(context.over(false));
  while (true) {
    checksums_ = store_.whole_checksums_.load(std::memory_order_relaxed);
    Call call{.method = "POST", .bucket = store_.bucket_, .key = key_, .query = {{"uploads", ""}}, .headers = headers_};
    if (checksums_) {
      call.headers.emplace_back("x-amz-checksum-algorithm", "CRC32C");
      call.headers.emplace_back("x-amz-checksum-type", "FULL_OBJECT");
    }
    // To its end, so that what has been begun is known and can be removed.
    auto answer = co_await client_.call(context.shielded(kGrace), std::move(call));
    if (answer) {
      auto id = read_upload_id(answer->body);
      if (!id) co_return fail(client_.protocol_error("id of an upload", Retry::never));
      id_ = std::move(*id);
      const std::lock_guard lock(store_.mutex_);
      store_.uploads_.insert(id_);
      co_return Result<void>();
    }
    const Error& error = answer.error();
    if (!checksums_ || (error.reason != "STORAGE_UNSUPPORTED" && error.reason != "STORAGE_ERROR"))
      co_return fail(std::move(answer).error());
    store_.whole_checksums_.store(false, std::memory_order_relaxed);
  }
}

Task<Result<void>> Upload::send_all(Context context, Chunk first) {
  PRISM_CO_CHECK(co_await begin(context));
  Scope scope;
  Result<void> result;
  Chunk chunk = std::move(first);
  for (std::size_t number = 1;; ++number) {
    if (number > kMaxParts) {
      result = fail(Code::invalid_argument, "PAYLOAD_TOO_LARGE",
                    "a payload whose size is not announced is stored up to " + std::to_string(total_) + " bytes",
                    "announce its size, or give Prism a larger byte budget");
      break;
    }
    const bool last = chunk.last;
    parts_.emplace_back();
    ++sending_;
    scope.spawn(send_part(context, number, std::move(chunk)));
    chunk = Chunk();
    if (last) break;
    const std::size_t size = part_size(number + 1);
    const auto held = static_cast<std::size_t>(std::min<std::uint64_t>(size, announced_ ? *announced_ - total_ : size));
    while (true) {
      co_await resume_on(client_.loop());
      if (failed_ || context.stopped()) break;
      const std::uint64_t seen = sent_.version();
      if (sending_ < client_.options().parallel_parts) {
        if (auto lease = store_.budget_->try_acquire(held)) {
          chunk.lease = std::move(*lease);
          break;
        }
        if (sending_ == 0) {  // holding nothing, it may wait
          auto lease = co_await store_.budget_->acquire(context, held);
          if (!lease) break;
          chunk.lease = std::move(*lease);
          break;
        }
      }
      co_await sent_.wait(
          context, seen,
          std::max<Clock::duration>(std::min<Clock::duration>(1min, context.deadline() - Clock::now()), 0ms));
    }
    co_await resume_on(client_.loop());
    if (failed_) break;
    if (context.stopped()) {
      result = fail(context.over(false));
      break;
    }
    result = co_await fill(context, &chunk, size);
    co_await resume_on(client_.loop());
    if (!result) break;
  }
  if (!result) stop_.request_stop();
  co_await scope.join();
  co_await resume_on(client_.loop());
  if (failed_) result = fail(std::move(*failed_));
  co_return result;
}

Task<void> Upload::send_part(Context context, std::size_t number, Chunk chunk) {
  Call call{.method = "PUT",
            .bucket = store_.bucket_,
            .key = key_,
            .query = {{"partNumber", std::to_string(number)}, {"uploadId", id_}},
            .headers = {},
            .body = std::move(chunk.pieces)};
  if (checksums_) call.headers.emplace_back("x-amz-checksum-crc32c", checksum_text(chunk.crc));
  auto answer = co_await client_.call(std::move(context), std::move(call));
  co_await resume_on(client_.loop());
  chunk.lease.release();
  if (answer) {
    const std::string* const etag = answer->head.find("etag");
    parts_[number - 1] = {etag != nullptr ? without_quotes(*etag) : "", chunk.crc};
  } else if (!failed_) {
    failed_ = std::move(answer).error();
    // Of a part nobody sees anything.
    if (failed_->retry == Retry::unknown_outcome) failed_->retry = Retry::safe;
    stop_.request_stop();
  }
  --sending_;
  sent_.notify();
}

Task<Result<void>> Upload::stream_all(Context context) {
  PRISM_CO_CHECK(co_await begin(context));
  for (std::size_t number = 1; total_ < *announced_; ++number) {
    parts_.emplace_back();
    const std::uint64_t size = std::min<std::uint64_t>(part_size(number), *announced_ - total_);
    PRISM_CO_CHECK(co_await stream_part(context, number, size));
  }
  PRISM_CO_TRY(const Bytes more, co_await payload_.next(context, 1));
  if (!more.empty()) co_return fail(size_mismatch(false));
  co_return Result<void>();
}

// With the checksum behind it ("aws-chunked"), as it is not known before.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
Task<Result<void>> Upload::stream_part(Context context, std::size_t number, std::uint64_t size) {
  constexpr std::uint64_t kChunk = 256UL << 10;
  const auto chunk_head = [](std::uint64_t bytes) {
    char text[24];
    std::snprintf(text, sizeof text, "%llx\r\n", static_cast<unsigned long long>(bytes));
    return std::string(text);
  };
  const std::string trailer = "0\r\nx-amz-checksum-crc32c:";
  Call call{.method = "PUT",
            .bucket = store_.bucket_,
            .key = key_,
            .query = {{"partNumber", std::to_string(number)}, {"uploadId", id_}},
            .headers = {},
            .body = {},
            .fed = size};
  if (checksums_) {
    const std::uint64_t whole = size / kChunk;
    const std::uint64_t rest = size % kChunk;
    call.fed = size + whole * (chunk_head(kChunk).size() + 2) + (rest > 0 ? chunk_head(rest).size() + 2 : 0) +
               trailer.size() + 8 + 4;
    call.headers = {{"content-encoding", "aws-chunked"},
                    {"x-amz-decoded-content-length", std::to_string(size)},
                    {"x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
                    {"x-amz-trailer", "x-amz-checksum-crc32c"}};
  }
  auto opened = co_await client_.open(context, call);
  if (!opened) co_return fail(std::move(opened).error());
  Exchange& exchange = *opened->exchange;
  std::uint32_t crc = 0;
  bool taken = true;  // until the server answers before it has all
  for (std::uint64_t sent = 0; sent < size && taken;) {
    const std::uint64_t chunk = std::min(kChunk, size - sent);
    if (checksums_) taken = co_await exchange.feed(context, Bytes(chunk_head(chunk)));
    for (std::uint64_t left = chunk; left > 0 && taken;) {
      PRISM_CO_TRY(Bytes piece, co_await payload_.next(context, static_cast<std::size_t>(left)));
      if (piece.empty()) co_return fail(size_mismatch(true));
      count(piece.view(), &crc);
      left -= piece.size();
      taken = co_await exchange.feed(context, std::move(piece));
    }
    if (checksums_ && taken) taken = co_await exchange.feed(context, Bytes::from_static("\r\n"));
    sent += chunk;
  }
  if (checksums_ && taken)
    static_cast<void>(co_await exchange.feed(context, Bytes(trailer + checksum_text(crc) + "\r\n\r\n")));
  auto head = co_await exchange.head(context);
  if (!head) {
    if (head.error().retry == Retry::unknown_outcome) head.error().retry = Retry::safe;  // nobody sees a part
    co_return fail(std::move(head).error());
  }
  if (head->status < 200 || head->status > 299)
    co_return fail(co_await client_.refused(context, &*head, &exchange, &call));
  const std::string* const etag = head->find("etag");
  parts_[number - 1] = {etag != nullptr ? without_quotes(*etag) : "", crc};
  co_return Result<void>();
}

Task<Result<ObjectInfo>> Upload::complete(Context context) {
  Call call{.method = "POST",
            .bucket = store_.bucket_,
            .key = key_,
            .query = {{"uploadId", id_}},
            .headers = conditions(),
            .body = {Bytes(write_parts(parts_, checksums_))},
            .sign_body = true};
  call.headers.emplace_back("content-type", "application/xml");
  if (checksums_) {
    call.headers.emplace_back("x-amz-checksum-crc32c", checksum_text(crc_));
    call.headers.emplace_back("x-amz-checksum-type", "FULL_OBJECT");
  }
  auto answer = co_await client_.call(context, std::move(call));
  if (!answer) co_return co_await refused(std::move(context), std::move(answer).error());
  auto etag = read_completed(answer->body);
  if (!etag) co_return fail(client_.protocol_error("etag of a completed upload", Retry::unknown_outcome));
  co_return info(answer->head, std::move(*etag));
}

Task<void> Upload::abort() {
  auto aborted = co_await client_.call(
      Context().with_timeout(kGrace),
      Call{.method = "DELETE", .bucket = store_.bucket_, .key = key_, .query = {{"uploadId", id_}}});
  // What could not be removed is left to abort_uploads().
  static_cast<void>(aborted);
  const std::lock_guard lock(store_.mutex_);
  store_.uploads_.erase(id_);
}

}  // namespace prism::s3
