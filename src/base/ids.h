// Identifiers: UUID version 7 (RFC 9562, section 5.7), which sorts by time of creation, and random 128-bit values.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/types.h"

namespace prism {

using Id128 = std::array<std::byte, 16>;

Id128 random_id();               // 128 random bits from the operating system's generator
std::string uuid7();             // "018f3f5e-...": milliseconds since 1970 (UTC), then 74 random bits; thread-safe
std::string uuid7_at(WallTime);  // the same for a given time
std::optional<WallTime> uuid7_time(std::string_view uuid);  // creation time in milliseconds, or none if it is no UUIDv7
std::string to_hex(const Id128&);                           // 32 lower-case hex digits
std::optional<Id128> from_hex(std::string_view);

}  // namespace prism
