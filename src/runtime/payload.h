// Payload: a handle to a message's body, inline or streamed; nothing ever holds a whole large one in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

// Pull only: the call is the credit, down to the client's HTTP/2 window. At most one call outstanding. Destroying a
// source that was not read to its end cancels it without waiting.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // The next piece, 1 to `max` bytes; empty at the end. After an error or the end it is not called again.
  virtual Task<Result<Bytes>> next(Context context, std::size_t max) = 0;
};

// Move-only, read once, one call at a time; the caller keeps it alive until the task ends.
class Payload {
 public:
  Payload() noexcept : Payload(Bytes()) {}
  explicit Payload(Bytes inline_bytes) noexcept : buffered_(std::move(inline_bytes)), size_(buffered_.size()) {}
  Payload(std::unique_ptr<ByteSource> source, std::optional<std::uint64_t> size) noexcept
      : source_(std::move(source)), size_(size) {}
  Payload(Payload&&) noexcept = default;
  Payload& operator=(Payload&&) noexcept = default;

  // The whole size in bytes where it is known; it does not shrink while reading.
  std::optional<std::uint64_t> size() const noexcept { return size_; }
  // The bytes at hand: all of them if is_inline().
  const Bytes& buffered() const noexcept { return buffered_; }
  bool is_inline() const noexcept { return source_ == nullptr; }

  // Up to n bytes from the front (fewer at the end), kept for the next read: how a threshold is decided.
  Task<Result<Bytes>> peek(Context context, std::size_t n);
  // The next piece, at most `max` bytes; empty at the end.
  Task<Result<Bytes>> next(Context context, std::size_t max);
  // All that is left. More than `limit` bytes: PAYLOAD_TOO_LARGE and nothing is kept.
  Task<Result<Bytes>> collect(Context context, std::size_t limit);

 private:
  Bytes buffered_;
  std::unique_ptr<ByteSource> source_;
  std::optional<std::uint64_t> size_;
};

}  // namespace prism
