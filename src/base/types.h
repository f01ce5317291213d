// Small value types shared by every layer.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace prism {

using Clock = std::chrono::steady_clock;
// Microseconds since 1970-01-01T00:00:00Z.
using WallTime = std::chrono::sys_time<std::chrono::microseconds>;
inline WallTime wall_now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}

// Order and duplicates are kept. Names beginning with "prism-" are Prism's own.
using Headers = std::vector<std::pair<std::string, Bytes>>;

// The only form of an operation: one call, one coroutine frame and one completion for n entries; results in the same
// order.
template <class T>
using Batch = std::vector<T>;

// What an acknowledged item survives. memory: nothing; os: death of the process; fsync: loss of power; replicated: loss
// of a machine.
enum class Durability : std::uint8_t { memory, os, fsync, replicated };

constexpr std::string_view to_string(Durability d) noexcept {
  switch (d) {
    case Durability::memory:
      return "memory";
    case Durability::os:
      return "os";
    case Durability::fsync:
      return "fsync";
    case Durability::replicated:
      return "replicated";
  }
  return "memory";
}

}  // namespace prism
