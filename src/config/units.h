// Sizes and durations as people write them. Exact integer arithmetic throughout: a value is either exactly what was
// written or an error, never rounded.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace prism::config {

// A length of time, or nullopt for "without end".
using Lifetime = std::optional<std::chrono::nanoseconds>;

// Bytes. A bare number is bytes. B; kB MB GB TB PB are powers of 1000; KiB MiB GiB TiB PiB powers of 1024 (case does
// not matter, one space or '_' may stand before the unit). A fraction is accepted if the result is a whole number of
// bytes (1.5MB). Reason INVALID_SIZE.
Result<std::uint64_t> parse_size(std::string_view text);

// A bare number is seconds. Units ns, us, ms, s, m, h, d, w and their long forms (second(s), minute(s), hour(s),
// day(s), week(s)), joined to the number, or apart by a space or '_' ("30 days", "1_day"); several parts add up
// ("1h30m"). "infinite" and "null" are without end. At most 292 years. Reason INVALID_DURATION.
Result<Lifetime> parse_duration(std::string_view text);

// A number of things per time, as a number a second. Forms: "10k msgs/s", "500/min", "1.5M events per day", "100" (a
// second). k, M and G are powers of 1000 (case does not matter); the name of what is counted does not matter; the time
// is a unit of parse_duration. Above 0, at most 1e12. Reason INVALID_RATE.
Result<double> parse_rate(std::string_view text);

// The units that parse_duration knows, in lower case.
std::vector<std::string_view> duration_units();

// Texts that parse_size and parse_duration read back as the same value, in the largest unit that is exact.
std::string format_size(std::uint64_t bytes);
std::string format_duration(std::chrono::nanoseconds duration);
std::string format_lifetime(const Lifetime& lifetime);

}  // namespace prism::config
