// What the commands print: errors, sizes, the progress of long transfers.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "cli/command.h"

namespace prism::cli {

// "error: message [REASON]\n  hint: ..." on stderr; as JSON {"error": {...}} on stdout.
void print_error(const Error& error, Format format = Format::text);

std::string human_bytes(std::uint64_t bytes);                            // "1.0 GiB"
std::string human_time(std::chrono::steady_clock::duration duration);    // "1.25 s"
std::string iso_time(std::chrono::sys_time<std::chrono::microseconds>);  // "2026-01-31T12:34:56.123456Z"

// A bar on a terminal's stderr, redrawn at most ten times a second; nothing anywhere else. Not thread-safe.
class Progress {
 public:
  // total: unknown if none
  Progress(std::string what, std::optional<std::uint64_t> total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(std::uint64_t bytes);

 private:
  void draw(bool last);

  std::string what_;
  std::optional<std::uint64_t> total_;
  std::uint64_t done_ = 0;
  bool shown_;
  std::chrono::steady_clock::time_point begun_, drawn_;
};

}  // namespace prism::cli
