#include "base/crc32c.h"

#include <array>
#include <cstddef>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace prism {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr auto kTable = make_table();

std::uint32_t portable(std::uint32_t crc, std::string_view data) noexcept {
  for (const char c : data) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return crc;
}

#if defined(__x86_64__)
// The instruction has a latency of 3 cycles and a throughput of 1: three lanes run at once and are joined by shifting
// the earlier ones over the length of a lane, one table look-up a byte of the register.
constexpr std::size_t kLane = 1024;

// The register after kLane zero bytes, for each byte of the register (linear, so the four look-ups are combined with
// xor).
std::array<std::array<std::uint32_t, 256>, 4> make_shift() {
  std::array<std::array<std::uint32_t, 256>, 4> table{};
  for (std::size_t byte = 0; byte < 4; ++byte) {
    for (std::uint32_t v = 0; v < 256; ++v) {
      std::uint32_t crc = v << (8 * byte);
      for (std::size_t i = 0; i < kLane; ++i) crc = kTable[crc & 0xff] ^ (crc >> 8);
      table[byte][v] = crc;
    }
  }
  return table;
}

__attribute__((target("sse4.2"))) std::uint32_t hardware(std::uint32_t crc, std::string_view data) noexcept {
  static const auto shift_table = make_shift();
  const auto shift = [](std::uint32_t c) {
    return shift_table[0][c & 0xff] ^ shift_table[1][(c >> 8) & 0xff] ^ shift_table[2][(c >> 16) & 0xff] ^
           shift_table[3][c >> 24];
  };
  const char* p = data.data();
  std::size_t n = data.size();
  while (n >= 3 * kLane) {
    std::uint64_t a = crc;
    std::uint64_t b = 0;
    std::uint64_t c = 0;
    for (std::size_t i = 0; i < kLane; i += 8) {
      std::uint64_t x;
      std::uint64_t y;
      std::uint64_t z;
      std::memcpy(&x, p + i, 8);
      std::memcpy(&y, p + kLane + i, 8);
      std::memcpy(&z, p + 2 * kLane + i, 8);
      a = _mm_crc32_u64(a, x);
      b = _mm_crc32_u64(b, y);
      c = _mm_crc32_u64(c, z);
    }
    crc = shift(shift(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^ static_cast<std::uint32_t>(c);
    p += 3 * kLane;
    n -= 3 * kLane;
  }
  std::uint64_t wide = crc;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t v;
    std::memcpy(&v, p, 8);
    wide = _mm_crc32_u64(wide, v);
  }
  crc = static_cast<std::uint32_t>(wide);
  for (; n > 0; ++p, --n) crc = _mm_crc32_u8(crc, static_cast<unsigned char>(*p));
  return crc;
}
#endif

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, std::string_view data) noexcept {
  crc = ~crc;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~hardware(crc, data);
#endif
  return ~portable(crc, data);
}

}  // namespace prism
