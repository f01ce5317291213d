// Typed options, declared once beside the component that takes them. The declaration is the parser, the checker and the
// source of the reference documentation and the JSON Schema:
//
//   struct Options { std::uint64_t threshold; Storage storage; };
//   const Schema<Options>& options_schema() {
//     static const auto schema = Schema<Options>("claim-check", "Stores large payloads in an object store.")
//         .field(&Options::threshold, "threshold", Size{.min = 1}, "A payload larger than this is
//         stored.").default_("1MB") .field(&Options::storage, "storage", Nested{storage_schema()}.shorthand("backend"),
//         "Where payloads are stored.").required() .spelling("bucket", "storage.bucket");
//     return schema;
//   }
//
// Parsing is strict: an unknown key, a wrong type, unit or range is an error at its place, and all errors are
// collected. Reasons: UNKNOWN_OPTION, MISSING_OPTION, DUPLICATE_OPTION (two spellings of one), OPTION_NOT_AVAILABLE,
// WRONG_TYPE, INVALID_NUMBER, INVALID_SIZE, INVALID_DURATION, INVALID_RATE, INVALID_VALUE, INVALID_SQL_IDENTIFIER,
// OUT_OF_RANGE; warnings DEPRECATED_OPTION, PLAIN_SECRET, IDENTIFIER_NEEDS_QUOTES. One mistake gives one error: what
// follows from it is not reported.
//
// A schema that contradicts itself (a default that does not parse, a name used twice) is a mistake of the program and
// aborts it where it is declared.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/diagnostics.h"
#include "config/document.h"
#include "config/secret.h"
#include "config/units.h"

namespace prism::config {

// ---- What a schema says about itself
// -------------------------------------------------------------------------------------

struct SchemaInfo;

struct TypeInfo {
  enum class Form : std::uint8_t { boolean, integer, string, size, duration, enumeration, list, map, object, any };
  Form form = Form::any;
  std::string name;                          // "size", "list of string", "one of a, b"
  std::string unit;                          // of a bare number: "bytes", "seconds"; may be empty
  std::string min, max;                      // as text; empty: no bound
  bool infinite = false;                     // a duration may be "infinite"
  bool secret = false;                       // its values must never be shown
  std::vector<std::string> values;           // of an enumeration
  std::string pattern;                       // regular expression (ECMAScript) of a string
  std::shared_ptr<const TypeInfo> element;   // of a list or map
  std::shared_ptr<const SchemaInfo> object;  // of an object
  std::string shorthand;                     // of an object: the field that a scalar in its place means; may be empty
};

// "between 1 and 10", "at least 1", "at most 10"; empty without bounds.
std::string bounds_text(const TypeInfo& type);

struct FieldInfo {
  std::string name;
  std::vector<std::string> aliases;
  TypeInfo type;
  std::string description;
  std::optional<std::string> default_text;
  bool required = false;
  bool secret = false;
  bool takes_null = false;  // a key without a value means the same as no key
  std::string deprecated;   // what to use instead; empty: not deprecated
  std::string example;
  // The values that this version can do; any other one is refused. nullopt: all that the type allows.
  std::optional<std::vector<std::string>> available;
};

// "In this version only none.", "Not available in this version."; empty: all values are available.
std::string available_text(const FieldInfo& field);

struct Spelling {
  std::string key;     // a key of the object itself ...
  std::string target;  // ... that means this dotted path within it
};

struct SchemaInfo {
  std::string name, description;
  std::vector<FieldInfo> fields;
  std::vector<Spelling> spellings;

  const FieldInfo* find(std::string_view name_or_alias) const;
  std::vector<std::string> known_keys() const;  // names, aliases and spellings
};

// ---- Types: each parses a Node into a value and describes itself
// -------------------------------------------------------------

// false: an error was added and `out` is as it was, or partly set.
struct Bool {
  TypeInfo info() const;
  bool parse(const Node& node, bool& out, Diagnostics& diagnostics) const;
};

// A whole number; the bounds also hold to those of the member's type.
struct Int {
  std::int64_t min = std::numeric_limits<std::int64_t>::min();
  std::int64_t max = std::numeric_limits<std::int64_t>::max();

  TypeInfo info() const;
  bool parse(const Node& node, std::int64_t& out, Diagnostics& diagnostics) const;
  template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, std::int64_t>)
  bool parse(const Node& node, T& out, Diagnostics& diagnostics) const {
    Int narrowed = *this;
    if (std::cmp_greater(std::numeric_limits<T>::min(), narrowed.min)) {
      narrowed.min = static_cast<std::int64_t>(std::numeric_limits<T>::min());
    }
    if (std::cmp_less(std::numeric_limits<T>::max(), narrowed.max)) {
      narrowed.max = static_cast<std::int64_t>(std::numeric_limits<T>::max());
    }
    std::int64_t value = 0;
    if (!narrowed.parse(node, value, diagnostics)) return false;
    out = static_cast<T>(value);
    return true;
  }
};

// Text; by default any but the empty one. `pattern` must match the whole text; `expects` says in words what it asks
// for; `hint` may say how to mend a text that does not match.
struct Text {
  std::string pattern = {};
  std::string expects = {};
  bool allow_empty = false;
  std::string (*hint)(const std::string& text) = nullptr;

  TypeInfo info() const;
  bool parse(const Node& node, std::string& out, Diagnostics& diagnostics) const;
};

// A name of a topic, table, bucket, ...: letters, digits, '.', '_', '-', beginning with a letter, digit or '_', at most
// 249.
Text Name();
// "host:port", port 0 to 65535. The host may be empty (any), a name, an IPv4 address, or an IPv6 one in brackets.
struct Address {
  bool need_host = false;

  TypeInfo info() const;
  bool parse(const Node& node, std::string& out, Diagnostics& diagnostics) const;
};

// A name of a table or column that is put into SQL: letters, digits and '_', beginning with a letter or '_', at most 63
// (PostgreSQL's limit), without a schema before it. Names of SQLite's own are refused. A name that SQL reads as it
// stands only in quotes (a capital letter, a reserved word) is accepted with a warning: Prism quotes it, applications
// must too.
struct SqlIdentifier {
  TypeInfo info() const;
  bool parse(const Node& node, std::string& out, Diagnostics& diagnostics) const;
};

// Text whose value must never be shown. A value written plainly into the file is accepted with a warning.
struct SecretText {
  TypeInfo info() const;
  bool parse(const Node& node, Secret& out, Diagnostics& diagnostics) const;
};

struct Size {
  std::uint64_t min = 0;
  std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

  TypeInfo info() const;
  bool parse(const Node& node, std::uint64_t& out, Diagnostics& diagnostics) const;
};

// A number of things a second; see parse_rate.
struct Rate {
  TypeInfo info() const;
  bool parse(const Node& node, double& out, Diagnostics& diagnostics) const;
};

// Parses into any std::chrono duration that can hold the value exactly.
struct Duration {
  std::chrono::nanoseconds min{0};
  std::chrono::nanoseconds max = std::chrono::nanoseconds::max();

  TypeInfo info() const;
  bool parse(const Node& node, std::chrono::nanoseconds& out, Diagnostics& diagnostics) const;
  template <class Rep, class Period>
  bool parse(const Node& node, std::chrono::duration<Rep, Period>& out, Diagnostics& diagnostics) const {
    std::chrono::nanoseconds value{};
    if (!parse(node, value, diagnostics)) return false;
    const auto coarse = std::chrono::duration_cast<std::chrono::duration<Rep, Period>>(value);
    if (coarse != value) {
      diagnostics.error(node, "INVALID_DURATION",
                        node.display() + " is finer than " + format_duration(std::chrono::duration<Rep, Period>(1)));
      return false;
    }
    out = coarse;
    return true;
  }
};

// The same, and "infinite" or null for no end.
struct DurationOrInfinite {
  std::chrono::nanoseconds min{0};

  TypeInfo info() const;
  bool parse(const Node& node, Lifetime& out, Diagnostics& diagnostics) const;
};

// Parsing of an enumeration's names, apart from its C++ type. Case and '-' against '_' do not count. Gives the index or
// nullopt.
std::optional<std::size_t> parse_enumeration(const Node& node, const std::vector<std::string>& names,
                                             Diagnostics& diagnostics);
TypeInfo enumeration_info(const std::vector<std::string>& names);

template <class E>
struct Enum {
  std::vector<std::pair<std::string, E>> values;

  TypeInfo info() const { return enumeration_info(names()); }
  bool parse(const Node& node, E& out, Diagnostics& diagnostics) const {
    const auto index = parse_enumeration(node, names(), diagnostics);
    if (index) out = values[*index].second;
    return index.has_value();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, value] : values) out.push_back(name);
    return out;
  }
};

// The value as it stands, unparsed.
struct Any {
  std::string name = "any value";  // what it is, in words

  TypeInfo info() const;
  bool parse(const Node& node, Node& out, Diagnostics&) const {
    out = node;
    return true;
  }
};

bool expect_list(const Node& node, std::size_t min, std::size_t max, Diagnostics& diagnostics);
bool expect_map(const Node& node, std::string_view what, Diagnostics& diagnostics);
TypeInfo list_info(const TypeInfo& element);
TypeInfo map_info(const TypeInfo& element);

template <class K>
struct ListOf {
  K element;
  std::size_t min = 0;
  std::size_t max = 10'000;

  TypeInfo info() const { return list_info(element.info()); }
  template <class T>
  bool parse(const Node& node, std::vector<T>& out, Diagnostics& diagnostics) const {
    if (!expect_list(node, min, max, diagnostics)) return false;
    out.clear();
    bool good = true;
    for (const Node& item : node.items()) {
      T value{};
      if (element.parse(item, value, diagnostics)) {
        out.push_back(std::move(value));
      } else {
        good = false;
      }
    }
    return good;
  }
};
template <class K>
ListOf(K) -> ListOf<K>;

template <class K>
struct MapOf {
  K element;

  TypeInfo info() const { return map_info(element.info()); }
  template <class T>
  bool parse(const Node& node, std::map<std::string, T>& out, Diagnostics& diagnostics) const {
    if (!expect_map(node, "names with their values", diagnostics)) return false;
    out.clear();
    bool good = true;
    for (const Entry& entry : node.entries()) {
      T value{};
      if (element.parse(entry.value, value, diagnostics)) {
        out.emplace(entry.key, std::move(value));
      } else {
        good = false;
      }
    }
    return good;
  }
};
template <class K>
MapOf(K) -> MapOf<K>;

// ---- Schema
// ---------------------------------------------------------------------------------------------------------------

namespace detail {

// The parts of a schema that do not depend on T.
class SchemaCore {
 public:
  SchemaCore(std::string name, std::string description);

  void add_field(FieldInfo field);
  void add_spelling(Spelling spelling);
  FieldInfo& last();
  const std::shared_ptr<SchemaInfo>& info() const { return info_; }
  void set_default(std::string text);               // of the last field
  const Node* default_of(std::size_t field) const;  // nullptr: none

  // Applies spellings, finds unknown keys, duplicates and missing required ones. values[i] is the node of field i, if
  // given. nullopt: the node is no map, or nothing can be made of it.
  struct Assigned {
    std::vector<std::optional<Node>> values;  // also what stands under a misspelt key, if it is a map or a list
    std::vector<bool> meant;                  // by a misspelt key
    Node map;
  };
  std::optional<Assigned> assign(const Node& node, Diagnostics& diagnostics) const;
  // Refuses a value that FieldInfo::available does not have.
  void check_available(std::size_t field, const Node& value, Diagnostics& diagnostics) const;

  [[noreturn]] void broken(const std::string& why) const;

 private:
  std::shared_ptr<SchemaInfo> info_;
  std::vector<std::optional<Node>> defaults_;  // as the fields
};

template <class K, class M>
concept ParsesInto = requires(const K& kind, const Node& node, M& out, Diagnostics& diagnostics) {
  { kind.parse(node, out, diagnostics) } -> std::same_as<bool>;
};

template <class M>
struct IsOptional : std::false_type {};
template <class V>
struct IsOptional<std::optional<V>> : std::true_type {};

}  // namespace detail

template <class T>
class Schema;

// A member with a schema of its own. Absent (or null) means the same as `{}`, unless the member is a std::optional.
template <class S>
class Nested {
 public:
  explicit Nested(const Schema<S>& schema) : schema_(schema) {}

  // A scalar in the object's place means an object with this one field: `storage: s3` for `storage: {backend: s3}`.
  Nested shorthand(std::string field) && {
    shorthand_ = std::move(field);
    return std::move(*this);
  }

  TypeInfo info() const {
    TypeInfo out;
    out.form = TypeInfo::Form::object;
    out.name = schema_.info().name;
    out.object = schema_.shared_info();
    out.shorthand = shorthand_;
    return out;
  }
  bool parse(const Node& node, S& out, Diagnostics& diagnostics) const {
    std::optional<S> value;
    if (node.is_scalar() && !node.broken() && !shorthand_.empty()) {
      value = schema_.parse(Node::make_map({Entry{shorthand_, node.position(), node}}, node), diagnostics);
    } else if (node.broken()) {
      return false;
    } else if (node.is_null()) {
      value = schema_.parse(Node::make_map({}, node), diagnostics);
    } else {
      value = schema_.parse(node, diagnostics);
    }
    if (!value) return false;
    out = std::move(*value);
    return true;
  }

 private:
  Schema<S> schema_;
  std::string shorthand_;
};

// T must be default-constructible; what a field without default does not set keeps T's own initialiser. Copies share
// the declaration; a finished schema may be used by any number of threads.
template <class T>
class Schema {
 public:
  Schema(std::string name, std::string description)
      : core_(std::make_shared<detail::SchemaCore>(std::move(name), std::move(description))),
        setters_(std::make_shared<std::vector<Setter>>()),
        checks_(std::make_shared<std::vector<Check>>()) {}

  // A std::optional member of a kind that is not itself optional is nullopt when the key is absent or null.
  template <class M, class Kind>
  Schema& field(M T::* member, std::string name, Kind kind, std::string description) {
    FieldInfo info;
    info.name = std::move(name);
    info.type = kind.info();
    info.description = std::move(description);
    info.secret = std::same_as<M, Secret> || std::same_as<M, std::optional<Secret>>;
    info.takes_null = !detail::ParsesInto<Kind, M> && info.type.form != TypeInfo::Form::any;
    Setter setter;
    if constexpr (detail::ParsesInto<Kind, M>) {
      setter.parse = [member, kind](const Node& node, T& out, Diagnostics& diagnostics) {
        return kind.parse(node, out.*member, diagnostics);
      };
      // Defaults inside an absent object still apply.
      setter.parse_when_absent = info.type.form == TypeInfo::Form::object;
    } else {
      static_assert(detail::IsOptional<M>::value, "this kind of option does not parse into a member of this type");
      // A lifetime takes null as "infinite", and Any takes it as it stands: neither is the same as "not given".
      setter.parse = [member, kind, takes_null = info.type.infinite || info.type.form == TypeInfo::Form::any](
                         const Node& node, T& out, Diagnostics& diagnostics) {
        if (node.is_null() && !takes_null) {
          out.*member = std::nullopt;
          return true;
        }
        typename M::value_type value{};
        if (!kind.parse(node, value, diagnostics)) return false;
        out.*member = std::move(value);
        return true;
      };
    }
    core_->add_field(std::move(info));
    setters_->push_back(std::move(setter));
    return *this;
  }

  // These refer to the field declared last.
  Schema& default_(std::string yaml) {  // as it would stand in the file: "1MB", "[a, b]"
    core_->set_default(std::move(yaml));
    T scratch{};
    Diagnostics diagnostics;
    const std::size_t last = setters_->size() - 1;
    if (!(*setters_)[last].parse(*core_->default_of(last), scratch, diagnostics)) {
      core_->broken("its default does not parse:\n" + format_text(diagnostics));
    }
    return *this;
  }
  Schema& required() {
    core_->last().required = true;
    return *this;
  }
  Schema& alias(std::string other_name) {
    core_->last().aliases.push_back(std::move(other_name));
    return *this;
  }
  Schema& deprecated(std::string use_instead) {
    core_->last().deprecated = std::move(use_instead);
    return *this;
  }
  // Declared for a later version: any value but these is read, checked, and refused with OPTION_NOT_AVAILABLE.
  Schema& available(std::vector<std::string> values) {
    core_->last().available = std::move(values);
    return *this;
  }
  Schema& example(std::string text) {
    core_->last().example = std::move(text);
    return *this;
  }

  // A key of this object that means a field further in: spelling("bucket", "storage.bucket") reads `storage: s3` +
  // `bucket: b` as `storage: {backend: s3, bucket: b}`. Both at once are DUPLICATE_OPTION. The target's objects must be
  // declared before.
  Schema& spelling(std::string key, std::string target) {
    core_->add_spelling({std::move(key), std::move(target)});
    return *this;
  }

  // What the fields must satisfy together; runs when each of them is right, or each of `fields` if they are named.
  // Reports at `node` (with the spellings applied) or one of its values.
  Schema& check(std::function<void(const T&, const Node& node, Diagnostics&)> condition) {
    checks_->push_back({std::move(condition), {}});
    return *this;
  }
  Schema& check(const std::vector<std::string>& fields,
                std::function<void(const T&, const Node& node, Diagnostics&)> condition) {
    Check check{std::move(condition), {}};
    for (const std::string& name : fields) {
      const FieldInfo* field = core_->info()->find(name);
      if (field == nullptr) core_->broken("a check concerns '" + name + "', which is no field");
      check.fields.push_back(static_cast<std::size_t>(field - core_->info()->fields.data()));
    }
    checks_->push_back(std::move(check));
    return *this;
  }

  // nullopt: at least one error was added.
  std::optional<T> parse(const Node& node, Diagnostics& diagnostics) const {
    const std::size_t errors = diagnostics.error_count();
    const auto assigned = core_->assign(node, diagnostics);
    if (!assigned) return std::nullopt;
    T out{};
    std::vector<bool> good(setters_->size(), true);  // a broken value fails without a further error
    for (std::size_t i = 0; i < setters_->size(); ++i) {
      const Setter& setter = (*setters_)[i];
      if (assigned->values[i]) {
        good[i] = setter.parse(*assigned->values[i], out, diagnostics);
        if (good[i]) core_->check_available(i, *assigned->values[i], diagnostics);
      } else if (const Node* standard = core_->default_of(i)) {
        setter.parse(*standard, out, diagnostics);
      } else if (setter.parse_when_absent && !core_->info()->fields[i].required) {
        const Node& map = assigned->map;
        setter.parse(Node::make_map({}, map, core_->info()->fields[i].name, map.position()), out, diagnostics);
      } else {
        good[i] = !core_->info()->fields[i].required;
      }
      if (assigned->meant[i]) good[i] = false;
    }
    const bool all_good = std::ranges::find(good, false) == good.end() && diagnostics.error_count() == errors;
    for (const Check& check : *checks_) {
      const bool concerned = check.fields.empty()
                                 ? all_good
                                 : std::ranges::all_of(check.fields, [&](std::size_t field) { return good[field]; });
      if (concerned) check.condition(out, assigned->map, diagnostics);
    }
    if (!all_good || diagnostics.error_count() != errors) return std::nullopt;
    return out;
  }

  // The same for callers that only want one Error.
  Result<T> parse(const Node& node) const {  // no value is broken in a tree without errors
    Diagnostics diagnostics;
    auto value = parse(node, diagnostics);
    if (!value) return std::unexpected(diagnostics.to_error());
    return std::move(*value);
  }

  // Checks without keeping the value: what a component hands to those who do not know T.
  std::function<void(const Node&, Diagnostics&)> validator() const {
    return [schema = *this](const Node& node, Diagnostics& diagnostics) { (void)schema.parse(node, diagnostics); };
  }

  const SchemaInfo& info() const { return *core_->info(); }
  std::shared_ptr<const SchemaInfo> shared_info() const { return core_->info(); }

 private:
  struct Setter {
    std::function<bool(const Node&, T&, Diagnostics&)> parse;
    bool parse_when_absent = false;
  };
  struct Check {
    std::function<void(const T&, const Node&, Diagnostics&)> condition;
    std::vector<std::size_t> fields;  // that it concerns; empty: all
  };

  std::shared_ptr<detail::SchemaCore> core_;
  std::shared_ptr<std::vector<Setter>> setters_;
  std::shared_ptr<std::vector<Check>> checks_;
};

}  // namespace prism::config
