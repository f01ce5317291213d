// Bytes: an immutable, reference-counted slice that keeps whatever holds its memory alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace prism {

// Copying costs one reference count. Any number of threads may read the same Bytes. Keeping one slice keeps its whole
// owner (a gRPC message, a batch's arena): use compact() before keeping a small part of a large owner beyond the
// request.
class Bytes {
 public:
  Bytes() noexcept = default;
  explicit Bytes(std::string text) {
    auto owner = std::make_shared<const std::string>(std::move(text));
    view_ = *owner;
    owner_ = std::move(owner);
  }
  explicit Bytes(const char* text) : Bytes(std::string(text)) {}
  // `view` must stay valid as long as `owner` lives.
  Bytes(std::shared_ptr<const void> owner, std::string_view view) noexcept : owner_(std::move(owner)), view_(view) {}

  // Memory that outlives the program (string literals); nothing is counted.
  static Bytes from_static(std::string_view text) noexcept { return Bytes(nullptr, text); }
  static Bytes copy(std::string_view text) { return Bytes(std::string(text)); }

  std::string_view view() const noexcept { return view_; }
  const char* data() const noexcept { return view_.data(); }
  std::size_t size() const noexcept { return view_.size(); }
  bool empty() const noexcept { return view_.empty(); }
  std::string str() const { return std::string(view_); }
  std::span<const std::byte> span() const noexcept { return std::as_bytes(std::span(view_.data(), view_.size())); }

  // A part of this slice, sharing the owner. `from` and `n` are clamped.
  Bytes slice(std::size_t from, std::size_t n = std::string_view::npos) const {
    if (from > view_.size()) from = view_.size();
    return Bytes(owner_, view_.substr(from, n));
  }
  Bytes compact() const { return Bytes::copy(view_); }

  friend bool operator==(const Bytes& a, const Bytes& b) noexcept { return a.view_ == b.view_; }
  friend bool operator==(const Bytes& a, std::string_view b) noexcept { return a.view_ == b; }

 private:
  std::shared_ptr<const void> owner_;
  std::string_view view_;
};

}  // namespace prism
