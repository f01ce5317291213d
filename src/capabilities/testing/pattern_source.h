// A payload for tests that is made as it is read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "runtime/payload.h"

namespace prism {

// Gives `size` bytes that are made as they are pulled, in pieces of at most `piece` bytes. The byte at i depends on i
// and the seed, so that any part can be checked.
class PatternSource final : public ByteSource {
 public:
  struct Options {
    std::uint64_t size = 0;
    std::size_t piece = 64UL << 10;
    unsigned seed = 1;
    std::uint64_t fail_at = ~std::uint64_t{0};      // answers SOURCE_BROKEN there
    std::function<void(std::uint64_t at)> on_pull;  // called at each pull, with the bytes given so far
  };
  explicit PatternSource(Options options) : options_(std::move(options)) {}

  static std::string bytes(std::uint64_t from, std::size_t n, unsigned seed = 1) {
    std::string out(n, '\0');
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t x = (from + i + (std::uint64_t{seed} << 40)) * 0x9e3779b97f4a7c15ULL;
      out[i] = static_cast<char>(x >> 40);
    }
    return out;
  }
  static Payload payload(Options options, bool size_known = true) {
    const std::uint64_t size = options.size;
    return Payload(std::make_unique<PatternSource>(std::move(options)),
                   size_known ? std::optional(size) : std::nullopt);
  }

  Task<Result<Bytes>> next(Context context, std::size_t max) override {
    if (options_.on_pull) options_.on_pull(at_);
    if (context.stopped()) co_return fail(context.over(false));
    if (at_ >= options_.fail_at) co_return fail(Code::unavailable, "SOURCE_BROKEN", "the test's source breaks here");
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>({max, options_.piece, options_.size - at_}));
    Bytes out(bytes(at_, n, options_.seed));
    at_ += n;
    co_return out;
  }

 private:
  Options options_;
  std::uint64_t at_ = 0;
};

}  // namespace prism
