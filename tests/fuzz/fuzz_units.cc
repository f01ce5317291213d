// proves: F-20, F-22, F-24
// Sizes, durations and rates: what is read is printed so that it reads back as the same.
#include <cmath>

#include "config/units.h"
#include "fuzz.h"

using namespace prism::config;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = prism::fuzz::text_of(data, size);
  if (const auto bytes = parse_size(text)) {
    REQUIRE(parse_size(format_size(*bytes)) == *bytes);
  } else {
    REQUIRE(bytes.error().reason == "INVALID_SIZE");
  }
  if (const auto duration = parse_duration(text)) {
    REQUIRE(!*duration || (*duration)->count() >= 0);
    const auto again = parse_duration(format_lifetime(*duration));
    REQUIRE(again && *again == *duration);
  } else {
    REQUIRE(duration.error().reason == "INVALID_DURATION");
  }
  if (const auto rate = parse_rate(text)) {
    REQUIRE(std::isfinite(*rate) && *rate > 0);
  } else {
    REQUIRE(rate.error().reason == "INVALID_RATE");
  }
  return 0;
}
