#include "cli/output.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace prism::cli {

using std::chrono::steady_clock;

void print_error(const Error& error, Format format) {
  if (format == Format::json) {
    nlohmann::json metadata = nlohmann::json::object();
    for (const auto& [key, value] : error.metadata) metadata[key] = value;
    const nlohmann::json body = {{"error",
                                  {{"code", to_string(error.code)},
                                   {"reason", error.reason},
                                   {"message", error.message},
                                   {"hint", error.hint},
                                   {"retry", to_string(error.retry)},
                                   {"metadata", std::move(metadata)}}}};
    fmt::print("{}\n", body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  fmt::print(stderr, "error: {}{}\n", error.message, error.reason.empty() ? "" : " [" + error.reason + "]");
  if (!error.hint.empty()) fmt::print(stderr, "  hint: {}\n", error.hint);
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr std::array<std::string_view, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_time(steady_clock::duration duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  return seconds < 1 ? fmt::format("{:.0f} ms", seconds * 1000) : fmt::format("{:.2f} s", seconds);
}

std::string iso_time(std::chrono::sys_time<std::chrono::microseconds> time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)),
                     (time - seconds).count());
}

Progress::Progress(std::string what, std::optional<std::uint64_t> total)
    : what_(std::move(what)),
      total_(total),
      shown_(::isatty(STDERR_FILENO) == 1),
      begun_(steady_clock::now()),
      drawn_(begun_) {}

Progress::~Progress() {
  if (shown_ && drawn_ != begun_) draw(true);  // what is quick shows no bar
}

void Progress::advance(std::uint64_t bytes) {
  done_ += bytes;
  if (!shown_) return;
  const auto now = steady_clock::now();
  if (now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  draw(false);
}

void Progress::draw(bool last) {
  const auto elapsed = std::max<double>(0.001, std::chrono::duration<double>(steady_clock::now() - begun_).count());
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(done_) / elapsed);
  std::string line = "\r\033[K" + what_ + "  ";
  if (total_ && *total_ > 0) {
    constexpr std::size_t kWidth = 30;
    const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(*total_));
    const auto full = static_cast<std::size_t>(share * kWidth);
    line += "[" + std::string(full, '#') + std::string(kWidth - full, '-') + fmt::format("] {:3.0f}%  ", share * 100);
  }
  line += human_bytes(done_) + "  " + human_bytes(rate) + "/s";
  if (last) line += "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace prism::cli
