#include "cli/reasons.h"

#include <array>
#include <string_view>

namespace prism {

std::string_view errors_page();  // made from the page by the build

namespace cli {
namespace {

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

std::vector<Reason> read(std::string_view page) {
  std::vector<Reason> out;
  std::string group;
  while (!page.empty()) {
    const std::size_t end = std::min(page.find('\n'), page.size());
    std::string_view line = page.substr(0, end);
    page.remove_prefix(std::min(end + 1, page.size()));
    if (line.starts_with("## ")) group = line.substr(3);
    if (!line.starts_with("| `")) continue;
    // Four columns (scripts/check-errors sees to that); what to do may hold a bar in a code span.
    std::array<std::string, 4> columns;
    line.remove_prefix(1);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::size_t bar = i + 1 < columns.size() ? line.find(" |") : line.rfind(" |");
      columns[i] = trimmed(line.substr(0, bar));
      line.remove_prefix(bar == std::string_view::npos ? line.size() : bar + 2);
    }
    out.push_back({.name = columns[0].substr(1, columns[0].size() - 2),
                   .codes = columns[1],
                   .meaning = columns[2],
                   .mend = columns[3],
                   .group = group});
  }
  return out;
}

}  // namespace

const std::vector<Reason>& reasons() {
  static const std::vector<Reason> all = read(errors_page());
  return all;
}

}  // namespace cli
}  // namespace prism
