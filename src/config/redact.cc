#include "config/redact.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/text.h"

namespace prism::config {
namespace {

constexpr auto kNone = std::string_view::npos;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_quote(char c) { return c == '\'' || c == '"' || c == '`'; }
bool in_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool begins_with(std::string_view text, std::string_view folded) {
  return text.size() >= folded.size() &&
         std::ranges::equal(text.substr(0, folded.size()), folded, {}, [](char c) { return lower(c); });
}

// "user:${env:PASSWORD}" and "${env:TOKEN}" show no secret; nor does what has been redacted.
bool is_harmless(std::string_view user_and_password) {
  if (user_and_password.empty() || user_and_password == kRedacted) return true;
  if (is_only_substitutions(user_and_password)) return true;
  const std::size_t colon = user_and_password.find(':');
  if (colon == kNone || user_and_password.substr(0, colon).find("${") != kNone) return false;
  const std::string_view password = user_and_password.substr(colon + 1);
  return password == kRedacted || is_only_substitutions(password);
}

// Up to the last '@', since passwords are written with '@', '/' and ':' in them, which they should not be.
std::optional<Stretch> in_address(std::string_view value) {
  const std::size_t end = value.rfind('@');
  if (end == kNone) return std::nullopt;
  const std::size_t scheme = value.substr(0, end).find("://");
  const std::size_t begin = scheme == kNone ? 0 : scheme + 3;
  const std::string_view user = value.substr(begin, end - begin);
  if (scheme == kNone && user.find(':') == kNone) return std::nullopt;  // a name@host
  if (is_harmless(user)) return std::nullopt;
  return Stretch{begin, end};
}

// Of the name that ends before `end`, spaces and quotes left out; empty: none.
std::string_view name_before(std::string_view text, std::size_t end) {
  while (end > 0 && (is_space(text[end - 1]) || is_quote(text[end - 1]))) --end;
  std::size_t begin = end;
  while (begin > 0 && in_name(text[begin - 1])) --begin;
  return text.substr(begin, end - begin);
}

// What the '=' or ':' at `at` gives to the name before it; ':' gives everything that follows.
std::optional<Stretch> given(std::string_view text, std::size_t at, std::size_t last_brace) {
  if (!names_a_secret(name_before(text, at))) return std::nullopt;
  std::size_t begin = at + 1;
  while (begin < text.size() && is_space(text[begin])) ++begin;
  std::size_t end = text.size();
  if (text[at] == '=') {
    if (begin < text.size() && is_quote(text[begin])) {
      end = std::min(text.find(text[begin], begin + 1), text.size());
      ++begin;
    } else {
      end = std::min(text.find_first_of("&; \t\r\n", begin), text.size());
    }
  }
  const std::string_view value = text.substr(begin, end - begin);
  if (value.empty() || value.starts_with(kRedacted) || is_only_substitutions(value)) return std::nullopt;
  if (text[at] == ':' && last_brace != kNone && last_brace >= begin) return std::nullopt;  // "token:{id}" is a pattern
  return Stretch{begin, end};
}

void find(std::string_view text, bool sentence, std::vector<Stretch>& out) {
  if (text.find("PRIVATE KEY") != kNone && !sentence) {
    out.push_back({0, text.size()});
    return;
  }
  for (const std::string_view scheme : {"bearer ", "basic "}) {
    if (!begins_with(text, scheme) || is_only_substitutions(text.substr(scheme.size()))) continue;
    out.push_back({scheme.size(), text.size()});
    return;
  }
  if (const auto found = in_address(text)) out.push_back(*found);
  const std::size_t last_brace = text.rfind('{');
  // A ':' in a sentence is most often its own: "password: give one".
  for (std::size_t at = text.find_first_of(sentence ? "=" : "=:"); at != kNone;
       at = text.find_first_of(sentence ? "=" : "=:", at + 1)) {
    const auto found = given(text, at, last_brace);
    if (!found) continue;
    out.push_back(*found);
    at = found->end - 1;
  }
  // The longest of those that overlap.
  std::ranges::sort(out, {}, [](const Stretch& each) { return std::pair(each.begin, -static_cast<long>(each.end)); });
  std::vector<Stretch> apart;
  for (const Stretch& each : out) {
    if (!apart.empty() && each.begin < apart.back().end) {
      apart.back().end = std::max(apart.back().end, each.end);
    } else {
      apart.push_back(each);
    }
  }
  out = std::move(apart);
}

std::string without(std::string_view text, const std::vector<Stretch>& stretches) {
  std::string out;
  std::size_t from = 0;
  for (const Stretch& each : stretches) {
    out += text.substr(from, each.begin - from);
    out += kRedacted;
    from = each.end;
  }
  return out += text.substr(from);
}

}  // namespace

bool is_only_substitutions(std::string_view text) {
  if (text.empty()) return false;
  while (text.starts_with("${")) {
    const std::size_t end = text.find('}');
    if (end == kNone) return false;
    text.remove_prefix(end + 1);
  }
  return text.empty();
}

bool names_a_secret(std::string_view option) {
  constexpr std::array kParts = {"password",   "passwd",    "passphrase", "secret",    "token",        "credential",
                                 "privatekey", "accesskey", "apikey",     "signature", "authorization"};
  std::string folded;
  for (const char c : option) {
    if (c != '_' && c != '-' && c != '.') folded += lower(c);
  }
  // Where it is, or whose.
  for (const std::string_view end : {"file", "path", "id", "name"}) {
    if (folded.ends_with(end)) return false;
  }
  return folded == "pwd" || folded == "pass" || folded == "auth" || folded == "sig" ||
         std::ranges::any_of(kParts, [&](std::string_view part) { return folded.find(part) != kNone; });
}

std::vector<Stretch> secrets_in(std::string_view value) {
  std::vector<Stretch> out;
  find(value, false, out);
  return out;
}

std::string redacted(std::string_view value) { return without(value, secrets_in(value)); }

std::string redacted_words(std::string_view text) {
  if (text.find_first_of("@=") == kNone) return std::string(text);
  constexpr std::string_view kBefore = "'\"`([{<", kBehind = "'\"`)]}>,.;:";
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
    const std::size_t end = std::min(text.find_first_of(" \t\r\n", begin), text.size());
    out += text.substr(at, begin - at);
    std::string_view word = text.substr(begin, end - begin);
    // `[redacted]` and `${env:X}` are words of their own.
    const std::size_t front = word.starts_with(kRedacted) ? 0 : std::min(word.find_first_not_of(kBefore), word.size());
    std::size_t back = word.size();
    while (back > front && kBehind.find(word[back - 1]) != kNone &&
           !(word[back - 1] == '}' && word.rfind("${", back) != kNone) && !word.substr(0, back).ends_with(kRedacted))
      --back;
    std::vector<Stretch> found;
    find(word.substr(front, back - front), true, found);
    out += word.substr(0, front);
    out += without(word.substr(front, back - front), found);
    out += word.substr(back);
    at = end;
  }
  return out;
}

std::string quotable(std::string_view text, std::size_t characters) {
  const std::string shown = redacted(text);
  std::size_t at = 0;
  for (std::size_t count = 0; at < shown.size() && count < characters; ++count) {
    at += std::max<std::size_t>(utf8_sequence(std::string_view(shown).substr(at)), 1);
  }
  return made_visible(std::string_view(shown).substr(0, at)) + (at < shown.size() ? "..." : "");
}

}  // namespace prism::config
