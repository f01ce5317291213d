#include "config/suggestions.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace prism::config {
namespace {

constexpr std::size_t kMaxLength = 64;
constexpr std::size_t kMaxListed = 20;

std::string folded(std::string_view text) {
  std::string out(text.substr(0, kMaxLength));
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_' || c == ' ') c = '-';
  }
  return out;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kMaxLength);
  b = b.substr(0, kMaxLength);
  std::array<std::array<std::size_t, kMaxLength + 1>, 3> rows{};  // before the last, last, present
  for (std::size_t j = 0; j <= b.size(); ++j) rows[1][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    rows[2][0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
      std::size_t best = std::min({rows[1][j] + 1, rows[2][j - 1] + 1, rows[1][j - 1] + cost});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) best = std::min(best, rows[0][j - 2] + 1);
      rows[2][j] = best;
    }
    rows[0] = rows[1];
    rows[1] = rows[2];
  }
  return rows[1][b.size()];
}

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> known) {
  if (word.empty() || word.size() > kMaxLength) return std::nullopt;
  const std::string wanted = folded(word);
  const std::size_t allowed = std::max<std::size_t>(1, wanted.size() / 3);
  const std::string* best = nullptr;
  std::size_t best_distance = std::numeric_limits<std::size_t>::max();
  for (const std::string& name : known) {
    const std::size_t distance = edit_distance(wanted, folded(name));
    // A name of one or two letters is "near" everything; it must share at least one of them.
    if (distance > allowed || distance >= std::max(wanted.size(), name.size()) || distance >= best_distance) continue;
    best = &name;
    best_distance = distance;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string suggest(std::string_view word, std::span<const std::string> known) {
  if (auto name = nearest(word, known)) return "did you mean '" + *name + "'?";
  if (known.empty()) return {};
  std::string out = "known here: ";
  for (std::size_t i = 0; i < known.size() && i < kMaxListed; ++i) {
    if (i != 0) out += ", ";
    out += known[i];
  }
  if (known.size() > kMaxListed) out += ", ...";
  return out;
}

}  // namespace prism::config
