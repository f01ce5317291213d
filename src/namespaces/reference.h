// What can be written into a configuration file, made from the same declarations that parse it: every option with all
// places at which it may stand, found by name, and the JSON Schema of a whole file.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/json_schema.h"
#include "config/schema.h"
#include "namespaces/syntax.h"
#include "patterns/catalogue.h"
#include "patterns/components.h"

namespace prism {

struct OptionPlace {
  std::string path;  // "namespaces[].patterns[].threshold"; "[]": an entry of a list, "<name>": any key of a map
  std::string note;  // what is different there: "as a plain value"; often empty
};

struct OptionReference {
  std::string name;   // "claim_check.threshold", by which it is asked for
  std::string owner;  // "pattern claim-check", "backend type sqlite", "namespace", "file"
  config::FieldInfo field;
  std::vector<OptionPlace> places;  // where it may stand, all meaning the same; the first is the one to prefer
  std::string pattern;              // of an option of a pattern: the pattern's name
  // What an object further in must have beside it, as "bucket: media".
  std::vector<std::string> beside = {};
};

struct PatternReference {
  PatternInfo info;
  std::string alias;                                  // may be empty
  std::vector<std::string> sections;                  // keys of the namespace that hold its options
  bool available = false;                             // part of this program
  std::shared_ptr<const config::SchemaInfo> options;  // null: it has none, or is not available
};

// Immutable once made; any number of threads may read it.
class Reference {
 public:
  // `components` must outlive it.
  explicit Reference(const Components& components);

  const std::vector<OptionReference>& options() const noexcept { return options_; }     // in the order of the file
  const std::vector<PatternReference>& patterns() const noexcept { return patterns_; }  // in canonical order
  const Components& components() const noexcept { return components_; }
  const FileSchemas& schemas() const noexcept { return schemas_; }

  // By full name, by a place ("namespaces[0].patterns[1].threshold", as in the path of a diagnostic), or by the end of
  // the name ("threshold"): all that it may mean. '-' and '_' are the same, case does not count.
  std::vector<const OptionReference*> find(std::string_view query) const;
  const PatternReference* pattern(std::string_view name_or_section) const noexcept;
  // Options of an object or a pattern, by full name: those one level below.
  std::vector<const OptionReference*> children(std::string_view name) const;
  // Everything that may be asked for, to suggest from.
  std::vector<std::string> known_names() const;

  // Of a whole file.
  config::Json json_schema() const;

  // A file that shows the option at one of its places, with nothing else in it but what shows where that is.
  static std::string example(const OptionReference& option, const OptionPlace& place);

 private:
  void walk(const config::SchemaInfo& info, const OptionReference& parent);
  void add_field(const config::FieldInfo& field, const OptionReference& parent, std::vector<std::string> beside);
  void add_places(const std::string& name, const std::vector<OptionPlace>& bases, const std::string& key,
                  const std::string& note);

  const Components& components_;
  FileSchemas schemas_;
  std::vector<PatternReference> patterns_;
  std::vector<OptionReference> options_;
};

// A value such as the option takes, as YAML: its example, its default, else one of its type.
std::string sample_value(const config::FieldInfo& field);

}  // namespace prism
