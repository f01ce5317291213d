#include "base/ids.h"

#include <sys/random.h>

#include <cstdint>
#include <cstring>

namespace prism {
namespace {

// A buffered reader of the operating system's generator: one system call for 32 identifiers.
void fill_random(std::byte* out, std::size_t n) {
  thread_local std::array<std::byte, 512> pool;
  thread_local std::size_t used = pool.size();
  if (used + n > pool.size()) {
    std::size_t got = 0;
    while (got < pool.size()) {
      const ssize_t r = getrandom(pool.data() + got, pool.size() - got, 0);
      if (r > 0) got += static_cast<std::size_t>(r);
    }
    used = 0;
  }
  std::memcpy(out, pool.data() + used, n);
  used += n;
}

constexpr char kHex[] = "0123456789abcdef";

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Id128 random_id() {
  Id128 id;
  fill_random(id.data(), id.size());
  return id;
}

std::string uuid7() { return uuid7_at(wall_now()); }

std::string uuid7_at(WallTime at) {
  Id128 id = random_id();
  const auto ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(at.time_since_epoch()).count());
  for (int i = 0; i < 6; ++i) id[static_cast<std::size_t>(i)] = static_cast<std::byte>(ms >> (40 - 8 * i));
  id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x70};
  id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string out;
  out.reserve(36);
  for (std::size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kHex[std::to_integer<unsigned>(id[i] >> 4)];
    out += kHex[std::to_integer<unsigned>(id[i] & std::byte{0x0f})];
  }
  return out;
}

std::optional<WallTime> uuid7_time(std::string_view uuid) {
  if (uuid.size() != 36 || uuid[14] != '7') return std::nullopt;
  std::uint64_t ms = 0;
  for (std::size_t i = 0; i < 13; ++i) {
    if (i == 8) {
      if (uuid[i] != '-') return std::nullopt;
      continue;
    }
    const int v = hex_value(uuid[i]);
    if (v < 0) return std::nullopt;
    ms = ms << 4 | static_cast<std::uint64_t>(v);
  }
  return WallTime(std::chrono::milliseconds(ms));
}

std::string to_hex(const Id128& id) {
  std::string out;
  out.reserve(32);
  for (const std::byte b : id) {
    out += kHex[std::to_integer<unsigned>(b >> 4)];
    out += kHex[std::to_integer<unsigned>(b & std::byte{0x0f})];
  }
  return out;
}

std::optional<Id128> from_hex(std::string_view text) {
  Id128 id{};
  if (text.size() != 2 * id.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    id[i] = static_cast<std::byte>(high << 4 | low);
  }
  return id;
}

}  // namespace prism
