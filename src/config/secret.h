// A value that must never be shown: it prints as "[redacted]" wherever it is printed, and its memory is cleared.
#pragma once

#include <fmt/format.h>

#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace prism::config {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  Secret(const Secret&) = default;
  // A move would leave a short text in the other's own memory.
  // NOLINTNEXTLINE(performance-move-constructor-init)
  Secret(Secret&& other) noexcept : value_(other.value_) { other.wipe(); }
  Secret& operator=(const Secret& other) {
    if (this != &other) {
      wipe();
      value_ = other.value_;
    }
    return *this;
  }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      wipe();
      value_ = other.value_;
      other.wipe();
    }
    return *this;
  }
  ~Secret() { wipe(); }

  // For the call that needs the value (a connection, a signature) and for nothing else.
  const std::string& reveal() const noexcept { return value_; }
  bool empty() const noexcept { return value_.empty(); }

  friend bool operator==(const Secret& a, const Secret& b) noexcept { return a.value_ == b.value_; }
  friend std::ostream& operator<<(std::ostream& out, const Secret&) { return out << "[redacted]"; }

 private:
  void wipe() noexcept;

  std::string value_;
};

}  // namespace prism::config

template <>
struct fmt::formatter<prism::config::Secret> : fmt::formatter<std::string_view> {
  auto format(const prism::config::Secret&, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format("[redacted]", context);
  }
};
