#include "config/schema.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <regex>
#include <set>

#include "config/redact.h"
#include "config/suggestions.h"

namespace prism::config {
namespace {

// Longer texts are not matched: the standard library's matcher recurses once a character.
constexpr std::size_t kMaxMatched = 2048;

// Compiling costs more than all else that is done with a value, and there are as many patterns as declarations have.
bool matches(const std::string& text, const std::string& pattern) {
  static std::mutex mutex;
  static std::map<std::string, std::regex> compiled;
  if (text.size() > kMaxMatched) return false;
  const std::regex* regex = nullptr;
  {
    const std::lock_guard lock(mutex);
    auto found = compiled.find(pattern);
    if (found == compiled.end()) found = compiled.emplace(pattern, std::regex(pattern)).first;
    regex = &found->second;
  }
  return std::regex_match(text, *regex);
}

bool expect_scalar(const Node& node, std::string_view expected, Diagnostics& diagnostics) {
  if (node.broken()) return false;
  if (node.is_scalar()) return true;
  const std::string hint = node.is_null() ? "write a value behind the colon, or remove the key"
                           : node.is_sequence() && node.items().size() == 1 ? "write the value without a list"
                                                                            : "";
  diagnostics.error(node, "WRONG_TYPE", "expected " + std::string(expected) + ", but this is " + node.display(), hint);
  return false;
}

// "name:orders" is one text in YAML, not a key and a value.
std::string colon_hint(const Node& node) {
  const std::string& text = node.text();
  const std::size_t colon = text.find(':');
  if (!node.is_scalar() || node.quoted() || node.hidden() || colon == std::string::npos || colon == 0) return {};
  if (text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") != colon) return {};
  return colon + 1 == text.size() ? "" : "put a space behind the colon: " + node.display() + " is one text";
}

std::string folded(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_') c = '-';
  }
  return out;
}

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    if (!out.empty()) out += ", ";
    out += part;
  }
  return out;
}

void out_of_range(const Node& node, const TypeInfo& info, Diagnostics& diagnostics) {
  diagnostics.error(node, "OUT_OF_RANGE", node.display() + " is out of range: it must be " + bounds_text(info));
}

// parse_size and parse_duration quote what they were given; a substituted value must not be quoted.
void report_unit(const Node& node, const Error& error, std::string_view what, Diagnostics& diagnostics) {
  diagnostics.error(node, error.reason,
                    node.hidden() ? "the value of " + node.display() + " is not " + std::string(what) : error.message,
                    error.hint);
}

}  // namespace

std::string bounds_text(const TypeInfo& type) {
  if (!type.min.empty() && !type.max.empty()) return "between " + type.min + " and " + type.max;
  if (!type.min.empty()) return "at least " + type.min;
  if (!type.max.empty()) return "at most " + type.max;
  return {};
}

std::string available_text(const FieldInfo& field) {
  if (!field.available) return {};
  if (field.available->empty()) return "Not available in this version.";
  return "In this version only " + join(*field.available) + ".";
}

const FieldInfo* SchemaInfo::find(std::string_view name_or_alias) const {
  for (const FieldInfo& field : fields) {
    if (field.name == name_or_alias || std::ranges::find(field.aliases, name_or_alias) != field.aliases.end())
      return &field;
  }
  return nullptr;
}

std::vector<std::string> SchemaInfo::known_keys() const {
  std::vector<std::string> out;
  for (const FieldInfo& field : fields) {
    out.push_back(field.name);
    out.insert(out.end(), field.aliases.begin(), field.aliases.end());
  }
  for (const Spelling& spelling : spellings) out.push_back(spelling.key);
  return out;
}

// ---- Types
// ----------------------------------------------------------------------------------------------------------------

TypeInfo Bool::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::boolean;
  out.name = "true or false";
  return out;
}

bool Bool::parse(const Node& node, bool& out, Diagnostics& diagnostics) const {
  if (!expect_scalar(node, "true or false", diagnostics)) return false;
  const std::string text = folded(node.text());
  if (text == "true" || text == "false") {
    out = text == "true";
    return true;
  }
  std::string hint;
  if (text == "yes" || text == "on" || text == "y" || text == "1") hint = "write true";
  if (text == "no" || text == "off" || text == "n" || text == "0") hint = "write false";
  diagnostics.error(node, "WRONG_TYPE", "expected true or false, but this is " + node.display(), hint);
  return false;
}

namespace {

// What was most likely meant by a text that is no whole number: 1,000, 1_000, 1k, 1000.0, 1000 rows.
std::string number_hint(std::string_view text) {
  std::string digits;
  std::size_t i = 0;
  for (; i < text.size() && digits.size() < 18; ++i) {
    if (text[i] >= '0' && text[i] <= '9') {
      digits += text[i];
    } else if (digits.empty() || (text[i] != ',' && text[i] != '_' && text[i] != '\'')) {
      break;
    }
  }
  if (digits.empty()) return {};
  std::string_view rest = text.substr(i);
  if (rest == "k" || rest == "K" || rest == "e3")
    digits += "000";
  else if (rest == "M" || rest == "e6")
    digits += "000000";
  else if (rest.starts_with('.') && rest.find_first_not_of('0', 1) != std::string_view::npos)
    return {};
  else if (!rest.empty() && rest.front() != ' ' && rest.front() != '.')
    return {};
  return "write " + digits;
}

}  // namespace

TypeInfo Int::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::integer;
  out.name = "whole number";
  if (min != std::numeric_limits<std::int64_t>::min()) out.min = std::to_string(min);
  if (max != std::numeric_limits<std::int64_t>::max()) out.max = std::to_string(max);
  return out;
}

bool Int::parse(const Node& node, std::int64_t& out, Diagnostics& diagnostics) const {
  if (!expect_scalar(node, "a whole number", diagnostics)) return false;
  const std::string& text = node.text();
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  std::int64_t value = 0;
  const auto [stopped, error] = std::from_chars(begin, end, value);
  if (error == std::errc::result_out_of_range && stopped == end) {
    diagnostics.error(node, "OUT_OF_RANGE", node.display() + " is beyond 64 bits");
    return false;
  }
  if (error != std::errc() || stopped != end) {
    diagnostics.error(node, "INVALID_NUMBER", "expected a whole number, but this is " + node.display(),
                      node.hidden() ? "" : number_hint(text));
    return false;
  }
  if (value < min || value > max) {
    out_of_range(node, info(), diagnostics);
    return false;
  }
  out = value;
  return true;
}

TypeInfo Text::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = expects.empty() ? "text" : expects;
  out.pattern = pattern.empty() && !allow_empty ? R"([\s\S]+)" : pattern;
  return out;
}

namespace {

// A hint that was made of a redacted text, unless it repeats what is left of it.
std::string shown_hint(std::string hint) { return hint.contains("redacted") ? std::string() : hint; }

}  // namespace

bool Text::parse(const Node& node, std::string& out, Diagnostics& diagnostics) const {
  const std::string expected = expects.empty() ? "text" : expects;
  if (!expect_scalar(node, expected, diagnostics)) return false;
  const std::string& text = node.text();
  if (text.empty() && !allow_empty) {
    diagnostics.error(node, "INVALID_VALUE", "expected " + expected + ", but this is empty");
    return false;
  }
  if (!pattern.empty() && !matches(text, pattern)) {
    diagnostics.error(node, "INVALID_VALUE",
                      node.display() + " is not " + (expects.empty() ? "of the form " + pattern : expects),
                      hint == nullptr || node.substituted() ? "" : shown_hint(hint(redacted(text))));
    return false;
  }
  out = text;
  return true;
}

TypeInfo Address::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = "address host:port";
  out.pattern = std::string(R"((\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-])") + (need_host ? "+" : "*") + R"():[0-9]{1,5})";
  return out;
}

bool Address::parse(const Node& node, std::string& out, Diagnostics& diagnostics) const {
  constexpr unsigned kMaxPort = 65535;
  const std::string expected = need_host ? "an address host:port" : "an address host:port or :port";
  if (!expect_scalar(node, expected, diagnostics)) return false;
  const std::string& text = node.text();
  if (!matches(text, info().pattern)) {
    std::string hint;
    if (!node.substituted() && node.hidden()) {
      hint = "user and password do not belong into an address: they have options of their own";
    } else if (!node.hidden() && !text.empty()) {
      if (text.find(',') != std::string::npos) {
        hint = "one address only; a list is written [a:1, b:2]";
      } else if (text.find("://") != std::string::npos) {
        hint = "leave out " + text.substr(0, text.find("://") + 3);
      } else if (text.find_first_not_of("0123456789") == std::string::npos) {
        hint = need_host ? "a host is missing, for example localhost:" + text.substr(0, 5)
                         : "write \":" + text.substr(0, 5) + "\"";
      } else if (text.find(':') == std::string::npos) {
        hint = "the port is missing";
      }
    }
    diagnostics.error(node, "INVALID_VALUE", node.display() + " is not " + expected, hint);
    return false;
  }
  if (std::stoul(text.substr(text.rfind(':') + 1)) > kMaxPort) {
    diagnostics.error(node, "OUT_OF_RANGE", "the port of " + node.display() + " is above 65535");
    return false;
  }
  out = text;
  return true;
}

TypeInfo SqlIdentifier::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = "SQL identifier";
  out.pattern = "[A-Za-z_][A-Za-z0-9_]{0,62}";
  return out;
}

bool SqlIdentifier::parse(const Node& node, std::string& out, Diagnostics& diagnostics) const {
  constexpr std::size_t kMax = 63;
  if (!expect_scalar(node, "an SQL identifier", diagnostics)) return false;
  const std::string& text = node.text();
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto is_part = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); };
  std::string why;
  if (text.empty()) {
    why = "it is empty";
  } else if (text.size() > kMax) {
    why = "it is longer than 63 letters";
  } else if (!std::ranges::all_of(text, is_part)) {
    why = "only letters, digits and '_' may stand in it";
  } else if (!is_letter(text.front())) {
    why = "it must begin with a letter or '_'";
  } else if (folded(text).starts_with("sqlite-")) {
    why = "names that begin with 'sqlite_' are SQLite's own";
  }
  if (!why.empty()) {
    std::string hint;
    if (!node.hidden() && text.size() <= kMax) {
      const std::size_t dot = text.rfind('.');
      std::string mended = text.substr(dot == std::string::npos ? 0 : dot + 1);
      std::ranges::replace_if(mended, [](char c) { return c == '-' || c == ' '; }, '_');
      if (!mended.empty() && mended != text && is_letter(mended.front()) && std::ranges::all_of(mended, is_part)) {
        hint = (dot == std::string::npos ? "did you mean '" : "name the table without its schema: '") + mended + "'";
        if (dot == std::string::npos) hint += "?";
      }
    }
    diagnostics.error(node, "INVALID_SQL_IDENTIFIER", node.display() + " is not an SQL identifier: " + why, hint);
    return false;
  }
  // The words of PostgreSQL and SQLite that people give to tables and columns.
  static const std::set<std::string, std::less<>> reserved = {
      "all",       "analyze",     "and",      "any",     "array",        "as",       "asc",     "between", "both",
      "by",        "case",        "cast",     "check",   "collate",      "column",   "commit",  "create",  "cross",
      "current",   "database",    "default",  "delete",  "desc",         "distinct", "do",      "drop",    "each",
      "else",      "end",         "except",   "exists",  "false",        "fetch",    "for",     "foreign", "from",
      "full",      "grant",       "group",    "having",  "in",           "index",    "inner",   "insert",  "into",
      "is",        "join",        "key",      "left",    "like",         "limit",    "natural", "not",     "null",
      "offset",    "on",          "only",     "or",      "order",        "outer",    "over",    "primary", "references",
      "returning", "right",       "rollback", "select",  "session_user", "set",      "some",    "table",   "then",
      "to",        "transaction", "true",     "trigger", "union",        "unique",   "update",  "user",    "using",
      "values",    "view",        "when",     "where",   "window",       "with"};
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (lower != text || reserved.contains(lower)) {
    diagnostics.warning(node, "IDENTIFIER_NEEDS_QUOTES",
                        node.display() + (lower != text ? " has capital letters" : " is a word of SQL") +
                            ": applications must write it in double quotes in their own SQL",
                        lower != text && !reserved.contains(lower) && !node.hidden() ? "name it " + lower : "");
  }
  out = text;
  return true;
}

namespace {

std::string name_hint(const std::string& text) {
  constexpr std::size_t kLongest = 249;
  if (text.size() > kLongest) return "shorten it";
  if (text.find_first_of("{}") != std::string::npos) return "no placeholders may stand here";
  if (text.find('#') != std::string::npos) return "put a space before '#' to begin a comment";
  std::string mended(text);
  std::ranges::replace_if(mended, [](char c) { return c == ' ' || c == '/' || c == ':'; }, '-');
  static const std::regex form(Name().pattern);
  return std::regex_match(mended, form) ? "did you mean '" + mended + "'?" : "";
}

}  // namespace

Text Name() {
  return Text{.pattern = "[A-Za-z0-9_][A-Za-z0-9._-]{0,248}",
              .expects = "a name of letters, digits, '.', '_' and '-' (at most 249)",
              .hint = name_hint};
}

TypeInfo SecretText::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = "secret text";
  out.secret = true;
  return out;
}

bool SecretText::parse(const Node& node, Secret& out, Diagnostics& diagnostics) const {
  if (node.broken()) return false;
  if (!node.is_scalar()) {
    diagnostics.error(node, "WRONG_TYPE", "expected a secret, but this is " + node.display(),
                      "write ${env:NAME} or ${file:PATH}");
    return false;
  }
  if (node.text().empty()) {
    diagnostics.error(node, "INVALID_VALUE", "the secret is empty", "write ${env:NAME} or ${file:PATH}");
    return false;
  }
  if (!node.substituted()) {
    diagnostics.warning(node, "PLAIN_SECRET", "this secret is written in the file", "use ${env:NAME} or ${file:PATH}");
  }
  out = Secret(node.text());
  return true;
}

TypeInfo Size::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::size;
  out.name = "size";
  out.unit = "bytes";
  if (min != 0) out.min = format_size(min);
  if (max != std::numeric_limits<std::uint64_t>::max()) out.max = format_size(max);
  return out;
}

bool Size::parse(const Node& node, std::uint64_t& out, Diagnostics& diagnostics) const {
  if (!expect_scalar(node, "a size such as 1MB", diagnostics)) return false;
  const auto value = parse_size(node.text());
  if (!value) {
    report_unit(node, value.error(), "a size", diagnostics);
    return false;
  }
  if (*value < min || *value > max) {
    out_of_range(node, info(), diagnostics);
    return false;
  }
  out = *value;
  return true;
}

TypeInfo Rate::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = "rate";
  out.pattern = R"([0-9]+(\.[0-9]+)?[kKmMgG]?([ _]*[A-Za-z]*[ _]*(/|[pP][eE][rR])[ _]*[^0-9]+)?)";
  out.unit = "per second";
  return out;
}

bool Rate::parse(const Node& node, double& out, Diagnostics& diagnostics) const {
  if (!expect_scalar(node, "a rate such as 10k msgs/s", diagnostics)) return false;
  const auto value = parse_rate(node.text());
  if (!value) {
    report_unit(node, value.error(), "a rate", diagnostics);
    return false;
  }
  out = *value;
  return true;
}

TypeInfo Duration::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::duration;
  out.name = "duration";
  out.unit = "seconds";
  if (min.count() != 0) out.min = format_duration(min);
  if (max != std::chrono::nanoseconds::max()) out.max = format_duration(max);
  return out;
}

bool Duration::parse(const Node& node, std::chrono::nanoseconds& out, Diagnostics& diagnostics) const {
  if (!expect_scalar(node, "a duration such as 100ms", diagnostics)) return false;
  const auto value = parse_duration(node.text());
  if (!value) {
    report_unit(node, value.error(), "a duration", diagnostics);
    return false;
  }
  if (!*value) {
    diagnostics.error(node, "OUT_OF_RANGE", "this duration must have an end",
                      "write a number with a unit, such as 100ms");
    return false;
  }
  if (**value < min || **value > max) {
    out_of_range(node, info(), diagnostics);
    return false;
  }
  out = **value;
  return true;
}

TypeInfo DurationOrInfinite::info() const {
  TypeInfo out = Duration{.min = min}.info();
  out.name = "duration or infinite";
  out.infinite = true;
  return out;
}

bool DurationOrInfinite::parse(const Node& node, Lifetime& out, Diagnostics& diagnostics) const {
  if (node.is_null()) {
    out = std::nullopt;
    return true;
  }
  if (!expect_scalar(node, "a duration such as 7 days, or 'infinite'", diagnostics)) return false;
  const auto value = parse_duration(node.text());
  if (!value) {
    report_unit(node, value.error(), "a duration", diagnostics);
    return false;
  }
  if (*value && **value < min) {
    out_of_range(node, info(), diagnostics);
    return false;
  }
  out = *value;
  return true;
}

std::optional<std::size_t> parse_enumeration(const Node& node, const std::vector<std::string>& names,
                                             Diagnostics& diagnostics) {
  if (!expect_scalar(node, "one of " + join(names), diagnostics)) return std::nullopt;
  const std::string text = folded(node.text());
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (folded(names[i]) == text) return i;
  }
  std::string hint;
  if (auto meant = nearest(node.text(), names); meant && !node.hidden()) hint = "did you mean '" + *meant + "'?";
  diagnostics.error(node, "INVALID_VALUE", node.display() + " is not one of " + join(names), hint);
  return std::nullopt;
}

TypeInfo enumeration_info(const std::vector<std::string>& names) {
  TypeInfo out;
  out.form = TypeInfo::Form::enumeration;
  out.name = "one of " + join(names);
  out.values = names;
  return out;
}

TypeInfo Any::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::any;
  out.name = name;
  return out;
}

namespace {

std::string list_hint(const Node& node) {
  constexpr std::size_t kShown = 100;
  const std::string& text = node.text();
  if (node.is_map()) return "begin each entry with '- '";
  if (!node.is_scalar()) return "write it as [a, b], or one '- item' a line";
  if (node.hidden() || text.size() > kShown || text.find_first_of("[]{}\n\"'") != std::string::npos)
    return "write it as [a, b], or one '- item' a line";
  std::string items;
  for (const char c : text) {
    if (c == ' ' && items.ends_with(' ')) continue;
    items += c;
    if (c == ',') items += ' ';
  }
  return "write it as a list: [" + items + "]";
}

}  // namespace

bool expect_list(const Node& node, std::size_t min, std::size_t max, Diagnostics& diagnostics) {
  if (node.broken()) return false;
  if (!node.is_sequence()) {
    diagnostics.error(node, "WRONG_TYPE", "expected a list, but this is " + node.display(), list_hint(node));
    return false;
  }
  if (node.items().size() < min || node.items().size() > max) {
    diagnostics.error(
        node, "OUT_OF_RANGE",
        "the list has " + std::to_string(node.items().size()) + (node.items().size() == 1 ? " entry" : " entries") +
            "; it must have " +
            (node.items().size() < min ? "at least " + std::to_string(min) : "at most " + std::to_string(max)));
    return false;
  }
  return true;
}

bool expect_map(const Node& node, std::string_view what, Diagnostics& diagnostics) {
  if (node.is_map()) return true;
  if (node.broken()) return false;
  std::string hint = colon_hint(node);
  if (node.is_null()) hint = "write a value behind the colon, or remove the key";
  if (node.is_sequence()) {
    const bool plain = std::ranges::all_of(node.items(), [](const Node& item) { return item.is_scalar(); });
    hint = plain ? "write 'key: value' lines in place of the list" : "write 'key: value' lines without '- '";
  }
  diagnostics.error(node, "WRONG_TYPE", "expected " + std::string(what) + " (a map), but this is " + node.display(),
                    hint);
  return false;
}

TypeInfo list_info(const TypeInfo& element) {
  TypeInfo out;
  out.form = TypeInfo::Form::list;
  out.name = "list of " + element.name;
  out.element = std::make_shared<const TypeInfo>(element);
  return out;
}

TypeInfo map_info(const TypeInfo& element) {
  TypeInfo out;
  out.form = TypeInfo::Form::map;
  out.name = "map of names to " + element.name;
  out.element = std::make_shared<const TypeInfo>(element);
  return out;
}

// ---- SchemaCore
// -----------------------------------------------------------------------------------------------------------

namespace detail {

SchemaCore::SchemaCore(std::string name, std::string description) : info_(std::make_shared<SchemaInfo>()) {
  info_->name = std::move(name);
  info_->description = std::move(description);
}

void SchemaCore::broken(const std::string& why) const {
  const std::string field = info_->fields.empty() ? "" : ", option '" + info_->fields.back().name + "'";
  std::fprintf(stderr, "the option schema '%s'%s contradicts itself: %s\n", info_->name.c_str(), field.c_str(),
               why.c_str());
  std::abort();
}

void SchemaCore::add_field(FieldInfo field) {
  if (info_->find(field.name) != nullptr) broken("'" + field.name + "' is declared twice");
  info_->fields.push_back(std::move(field));
  defaults_.emplace_back();
}

FieldInfo& SchemaCore::last() {
  if (info_->fields.empty()) broken("no field was declared yet");
  return info_->fields.back();
}

void SchemaCore::add_spelling(Spelling spelling) {
  if (info_->find(spelling.key) != nullptr) broken("the spelling '" + spelling.key + "' is also a field");
  const SchemaInfo* object = info_.get();
  std::string_view rest = spelling.target;
  while (true) {
    const std::size_t dot = rest.find('.');
    const FieldInfo* field = object->find(rest.substr(0, dot));
    if (field == nullptr)
      broken("the spelling '" + spelling.key + "' means an unknown option '" + spelling.target + "'");
    if (dot == std::string_view::npos) break;
    if (!field->type.object) broken("in the spelling '" + spelling.key + "', '" + field->name + "' is not an object");
    object = field->type.object.get();
    rest.remove_prefix(dot + 1);
  }
  if (object == info_.get()) broken("'" + spelling.key + "' is an alias, not a spelling");
  info_->spellings.push_back(std::move(spelling));
}

void SchemaCore::set_default(std::string text) {
  FieldInfo& field = last();
  Diagnostics diagnostics;
  LoadOptions options;
  options.file_name = "<default of " + field.name + ">";
  auto node = load_text(text, options, diagnostics);
  if (!node) broken("its default is not YAML:\n" + format_text(diagnostics));
  field.default_text = std::move(text);
  defaults_.back() = std::move(*node);
}

const Node* SchemaCore::default_of(std::size_t field) const { return defaults_[field] ? &*defaults_[field] : nullptr; }

namespace {

const Entry* entry_of(const Node& map, const FieldInfo& field) {
  if (const Entry* entry = map.entry(field.name)) return entry;
  for (const std::string& alias : field.aliases) {
    if (const Entry* entry = map.entry(alias)) return entry;
  }
  return nullptr;
}

void duplicate(const SourcePosition& at, std::string path, std::string_view key, const Entry& other,
               std::string_view same_as, Diagnostics& diagnostics) {
  diagnostics.error(at, std::move(path), "DUPLICATE_OPTION",
                    "'" + std::string(key) + "' means the same as '" + std::string(same_as) +
                        "', which is given in line " + std::to_string(other.key_position.line),
                    "keep one of them");
}

// `map` with `given` put in as the option `target` (dotted), seen from an object of type `object`.
Node put(const Node& map, const SchemaInfo& object, std::string_view target, const Entry& given,
         const std::string& given_path, std::string_view whole_target, Diagnostics& diagnostics) {
  const std::size_t dot = target.find('.');
  const FieldInfo& field = *object.find(target.substr(0, dot));
  const Entry* present = entry_of(map, field);
  std::vector<Entry> entries(map.entries().begin(), map.entries().end());
  if (dot == std::string_view::npos) {
    if (present != nullptr) {
      duplicate(given.key_position, given_path, given.key, *present, whole_target, diagnostics);
      return map;
    }
    entries.push_back({field.name, given.key_position, given.value});
    return Node::make_map(std::move(entries), map);
  }
  const std::string_view rest = target.substr(dot + 1);
  const SchemaInfo& inner = *field.type.object;
  if (present == nullptr) {
    const Node empty = Node::make_map({}, map, field.name, given.key_position);
    entries.push_back(
        {field.name, given.key_position, put(empty, inner, rest, given, given_path, whole_target, diagnostics)});
    return Node::make_map(std::move(entries), map);
  }
  Node base = present->value;
  if (base.is_scalar() && !field.type.shorthand.empty()) {
    base = Node::make_map({Entry{field.type.shorthand, base.position(), base}}, base);
  } else if (base.is_null()) {
    base = Node::make_map({}, base);
  }
  if (!base.is_map()) return map;  // the field's own type says what is wrong
  for (Entry& entry : entries) {
    if (entry.key == present->key) {
      entry.value = put(base, inner, rest, given, given_path, whole_target, diagnostics);
      break;
    }
  }
  return Node::make_map(std::move(entries), map);
}

// Where options of this name stand further in: "publisher.interval".
void find_within(const SchemaInfo& info, std::string_view key, const std::string& before,
                 std::vector<std::string>& found) {
  for (const FieldInfo& field : info.fields) {
    if (!field.type.object) continue;
    const std::string path = before + field.name;
    if (field.type.object->find(key) != nullptr) found.push_back(path + "." + std::string(key));
    find_within(*field.type.object, key, path + ".", found);
  }
}

std::string suggest_option(const std::string& key, const SchemaInfo& info) {
  const std::vector<std::string> known = info.known_keys();
  if (nearest(key, known)) return suggest(key, known);
  std::vector<std::string> within;
  find_within(info, key, {}, within);
  if (within.empty()) return suggest(key, known);
  return "it stands further in: " + join(within);
}

// A view may hold what stands elsewhere in the file: the value knows where that is.
std::string path_of(const Node& node, const Entry& entry) {
  std::string own = entry.value.path();
  return own.empty() ? node.path_of(entry.key) : own;
}

}  // namespace

std::optional<SchemaCore::Assigned> SchemaCore::assign(const Node& node, Diagnostics& diagnostics) const {
  if (!expect_map(node, "the options of " + info_->name, diagnostics)) return std::nullopt;
  Node map = node;
  for (const Spelling& spelling : info_->spellings) {
    const Entry* found = map.entry(spelling.key);
    if (found == nullptr) continue;
    const Entry given = *found;
    std::vector<Entry> entries;
    for (const Entry& entry : map.entries()) {
      if (entry.key != spelling.key) entries.push_back(entry);
    }
    map = put(Node::make_map(std::move(entries), map), *info_, spelling.target, given, path_of(node, given),
              spelling.target, diagnostics);
  }

  Assigned out;
  out.values.resize(info_->fields.size());
  std::vector<const Entry*> given_by(info_->fields.size(), nullptr);
  out.meant.resize(info_->fields.size());
  for (const Entry& entry : map.entries()) {
    const FieldInfo* field = info_->find(entry.key);
    if (field == nullptr) {
      diagnostics.error(entry.key_position, path_of(node, entry), "UNKNOWN_OPTION",
                        "unknown option '" + quotable(entry.key) + "' in " + info_->name,
                        suggest_option(entry.key, *info_));
      const auto name = nearest(entry.key, info_->known_keys());
      const FieldInfo* near = name ? info_->find(*name) : nullptr;
      if (near == nullptr || entry_of(map, *near) != nullptr) continue;
      const auto at = static_cast<std::size_t>(near - info_->fields.data());
      out.meant[at] = true;
      if (entry.value.is_map() || entry.value.is_sequence()) out.values[at] = entry.value;
      continue;
    }
    const auto index = static_cast<std::size_t>(field - info_->fields.data());
    if (given_by[index] != nullptr) {
      duplicate(entry.key_position, path_of(node, entry), entry.key, *given_by[index], given_by[index]->key,
                diagnostics);
      continue;
    }
    if (!field->deprecated.empty()) {
      diagnostics.add({Severity::warning, entry.key_position, path_of(node, entry), "DEPRECATED_OPTION",
                       "'" + entry.key + "' is deprecated", "use " + field->deprecated});
    }
    given_by[index] = &entry;
    out.values[index] = entry.value;
  }
  for (std::size_t i = 0; i < info_->fields.size(); ++i) {
    const FieldInfo& field = info_->fields[i];
    if (!field.required || out.values[i] || out.meant[i]) continue;
    diagnostics.error(
        node.position(), node.path_of(field.name), "MISSING_OPTION",
        "'" + field.name + "' is missing in " + info_->name,
        field.name + ": " + (field.example.empty() ? field.type.name : field.example) + " (" + field.description + ")");
  }
  out.map = std::move(map);
  return out;
}

void SchemaCore::check_available(std::size_t index, const Node& value, Diagnostics& diagnostics) const {
  const FieldInfo& field = info_->fields[index];
  if (!field.available) return;
  const auto is_value = [&](const std::string& each) {
    return value.is_scalar() && folded(each) == folded(value.text());
  };
  if (std::ranges::any_of(*field.available, is_value)) return;
  std::string hint = "leave it out";
  if (!field.available->empty()) hint += ", or set it to " + join(*field.available);
  diagnostics.error(value, "OPTION_NOT_AVAILABLE",
                    "'" + field.name + "'" +
                        (value.is_scalar() && !field.available->empty() ? " " + value.display() : std::string()) +
                        " is not available in this version of Prism",
                    hint);
}

}  // namespace detail

}  // namespace prism::config
