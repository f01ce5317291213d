// Names that are put into SQL, into addresses and into paths of topics: nothing gets through that could end them.
#include <algorithm>
#include <string>

#include "config/schema.h"
#include "fuzz.h"

namespace prism::config {
namespace {

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool digit(char c) { return c >= '0' && c <= '9'; }

template <class Kind>
bool accepts(const Kind& kind, const Node& node) {
  std::string out;
  Diagnostics diagnostics;
  const bool good = kind.parse(node, out, diagnostics);
  REQUIRE(good != diagnostics.has_errors());
  if (good) REQUIRE(out == node.text());
  return good;
}

void check(std::string_view text) {
  const Node node = Node::make_scalar(std::string(text), Node());
  if (accepts(SqlIdentifier{}, node)) {
    REQUIRE(!text.empty() && text.size() <= 63);
    REQUIRE(letter(text.front()) || text.front() == '_');
    REQUIRE(std::ranges::all_of(text, [](char c) { return letter(c) || digit(c) || c == '_'; }));
  }
  if (accepts(Name(), node)) {
    REQUIRE(!text.empty() && text.size() <= 249 && text.front() != '.' && text.front() != '-');
    REQUIRE(
        std::ranges::all_of(text, [](char c) { return letter(c) || digit(c) || c == '_' || c == '-' || c == '.'; }));
  }
  for (const bool need_host : {true, false}) {
    if (!accepts(Address{.need_host = need_host}, node)) continue;
    const std::size_t colon = text.rfind(':');
    REQUIRE(colon != std::string_view::npos && text.size() - colon - 1 <= 5);
    REQUIRE(std::stoul(std::string(text.substr(colon + 1))) <= 65535);
    REQUIRE(!need_host || colon > 0);
  }
}

}  // namespace
}  // namespace prism::config

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  prism::config::check(prism::fuzz::text_of(data, size));
  return 0;
}
