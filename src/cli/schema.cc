// The JSON Schema of configuration files, and their reference page.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/topics.h"
#include "namespaces/reference.h"
#include "patterns/components.h"

namespace prism::cli {
namespace {

enum class Output : int { json, markdown };

constexpr std::string_view kIntroduction = R"(# Configuration files

<!-- Made by `prism schema --format markdown` from the declarations that the program parses with: change those, then run `make reference`. -->

One YAML file says what a Prism process serves. `prism validate FILE` checks it: all mistakes at once, each with its line, a stable
[reason](errors.md) and the way to mend it. `prism explain NAME` shows anything that stands on this page. This is the whole form:

```yaml
server:                       # optional: addresses and the data folder of this process
  listen: 0.0.0.0:8980

backends:                     # optional: connections, by name
  main: {type: sqlite, path: data/main.db}

namespaces:                   # what clients publish to, subscribe to, read and write
  - name: videos
    client_api: pubsub        # optional: follows from the patterns
    patterns:                 # how: a chain of patterns, outermost first
      - type: outbox
        table: video_outbox
      - type: claim-check
        threshold: 1MB
    backend: kafka            # where: a name under `backends:`, or a backend type
```

## Editors

`prism schema > prism.schema.json` writes a JSON Schema (2020-12) of the file. Editors with a YAML language server complete and check
with it when the file begins with

```yaml
# yaml-language-server: $schema=prism.schema.json
```

The schema accepts everything that Prism accepts. What depends on several options, on the backends or on the order of patterns is for
`prism validate` to find.

## Where the options of a pattern stand

All of these mean the same:

```yaml
patterns:                     # beside the type, in the pattern's own entry
  - type: claim-check
    threshold: 1MB
    storage: {backend: s3, bucket: media}
```

```yaml
patterns:                     # below `config:`, with `enabled: false` to leave the pattern out
  - type: claim-check
    enabled: true
    config:
      threshold: 1MB
      storage: {backend: s3, bucket: media}
```

```yaml
patterns: [claim-check]       # in a section of the namespace that has the pattern's name with `_`
claim_check:
  threshold: 1MB
  storage: {backend: s3, bucket: media}
```

```yaml
pattern: claim-check          # a single pattern; `storage: s3` is short for `storage: {backend: s3}`
claim_check:
  threshold: 1MB
  storage: s3
  bucket: media
```

Some options are sections of the namespace by themselves, such as `publisher:` of the outbox; each pattern below lists them. An option
that is given in two places is an error, as is a section of a pattern that the namespace does not have.

)";

// For a cell of a table.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string code(std::string_view text) { return "`" + cell(text) + "`"; }

std::string listed(const auto& names, std::string_view separator = ", ") {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : std::string(separator)) + code(name);
  return out;
}

std::string value_text(const config::TypeInfo& type) {
  using Form = config::TypeInfo::Form;
  std::string out;
  if (type.form == Form::object) {
    const auto* field = type.shorthand.empty() ? nullptr : type.object->find(type.shorthand);
    return "map" + (field == nullptr ? "" : ", or its " + code(field->name));
  }
  if (type.form == Form::list) return "list of: " + value_text(*type.element);
  if (type.form == Form::map) return "map of names to: " + value_text(*type.element);
  if (type.form == Form::enumeration) return listed(type.values, " or ");
  out = type.name;
  if (const std::string bounds = config::bounds_text(type); !bounds.empty()) out += ", " + bounds;
  return cell(out);
}

// The rows of all options below `name`, in order.
std::string rows(const Reference& reference, const std::string& name) {
  std::string out;
  for (const OptionReference& option : reference.options()) {
    if (!option.name.starts_with(name + ".")) continue;
    const config::FieldInfo& field = option.field;
    std::string meaning = cell(field.description);
    if (!field.aliases.empty()) meaning += " Also called " + listed(field.aliases) + ".";
    if (const std::string text = config::available_text(field); !text.empty()) meaning += " **" + cell(text) + "**";
    if (field.secret) meaning += " A secret.";
    if (!field.deprecated.empty()) meaning += " **Deprecated:** use " + code(field.deprecated) + ".";
    if (!field.example.empty()) meaning += " Example: " + code(field.example) + ".";
    const std::string standard = field.required                                         ? "**required**"
                                 : !field.default_text || *field.default_text == "\"\"" ? ""
                                                                                        : code(*field.default_text);
    out += fmt::format("| {} | {} | {} | {} |\n", code(std::string_view(option.name).substr(name.size() + 1)),
                       value_text(field.type), standard, meaning);
  }
  if (out.empty()) return out;
  return "| option | value | default | meaning |\n|---|---|---|---|\n" + out + "\n";
}

void spellings(const config::SchemaInfo& info, const std::string& prefix, std::string& out) {
  for (const config::Spelling& spelling : info.spellings) {
    out += fmt::format("- {} is short for {}.\n", code(prefix + spelling.key), code(prefix + spelling.target));
  }
  for (const config::FieldInfo& field : info.fields) {
    const config::TypeInfo& type = field.type;
    if (!type.object) continue;
    if (!type.shorthand.empty()) {
      out += fmt::format("- {} is short for {}.\n", code(prefix + field.name + ": x"),
                         code(prefix + field.name + ": {" + type.shorthand + ": x}"));
    }
    spellings(*type.object, prefix + field.name + ".", out);
  }
}

std::string described(const Reference& reference, const PatternReference& pattern) {
  const PatternInfo& info = pattern.info;
  std::string summary(info.summary);
  summary.front() = static_cast<char>(std::toupper(summary.front()));
  std::string out = fmt::format("### {}\n\n{}.", info.name, summary);
  if (!pattern.alias.empty()) out += " Also called " + code(pattern.alias) + ".";
  if (!info.apis.empty()) out += " Client APIs: " + listed(info.apis) + ".";
  out += "\n\n";
  if (!pattern.available)
    return out + "Not available in this version: it may stand in a file with `enabled: false`.\n\n";
  std::string notes;
  if (!pattern.sections.empty()) {
    notes += fmt::format("- Its section in the namespace is {}.\n", code(pattern.sections.front()));
    for (std::size_t i = 1; i < pattern.sections.size(); ++i) {
      notes += fmt::format("- {} may also stand in the namespace itself.\n", code(pattern.sections[i]));
    }
  }
  if (pattern.options) spellings(*pattern.options, "", notes);
  for (const BackendNeed& need : info.backends) {
    notes += fmt::format(
        "- {} must be a backend with {}{}.\n", need.option.empty() ? "The namespace's `backend`" : code(need.option),
        listed(need.any_of, " or "), need.standard.empty() ? "" : "; " + code(need.standard) + " unless it is given");
  }
  for (const PatternConflict& conflict : info.conflicts) {
    notes += fmt::format("- Not together with {}: {}.\n", code(conflict.pattern), cell(conflict.why));
  }
  if (!notes.empty()) out += notes + "\n";
  return out + (pattern.sections.empty() ? "" : rows(reference, pattern.sections.front()));
}

std::string markdown(const Reference& reference) {
  std::string out(kIntroduction);
  for (const Topic& topic : topics()) out += fmt::format("## {}\n\n{}\n", topic.title, topic.text);
  out += "## The file\n\n";
  out += "| option | value | default | meaning |\n|---|---|---|---|\n";
  for (const OptionReference& option : reference.options()) {
    if (option.owner != "file") continue;
    out += fmt::format("| {} | {} | {} | {} |\n", code(option.name), value_text(option.field.type),
                       option.field.required ? "**required**" : "", cell(option.field.description));
  }
  out += "\n## A namespace\n\n" + rows(reference, "namespace");
  out += "## Patterns\n\n";
  for (const PatternReference& pattern : reference.patterns()) out += described(reference, pattern);
  out +=
      "## Backend types\n\nAn entry under `backends:` is `NAME: {type: TYPE, ...}`, or `NAME: TYPE`; without `type` "
      "its name is the type.\n\n";
  out += "| type | also called | can | connects | meaning |\n|---|---|---|---|---|\n";
  for (const BackendType& type : reference.components().backends) {
    out += fmt::format("| {} | {} | {} | {} | {} |\n", code(type.name), listed(type.aliases), listed(type.capabilities),
                       type.connect ? "yes" : "embedded only", cell(type.summary));
  }
  out += "\n";
  for (const BackendType& type : reference.components().backends) {
    const std::string table = rows(reference, "backends." + std::string(type.name));
    if (!table.empty()) out += fmt::format("### {}\n\n{}", type.name, table);
  }
  while (out.ends_with("\n\n")) out.pop_back();
  return out;
}

Exit schema(Output output) {
  const Reference reference(components());
  fmt::print("{}", output == Output::markdown ? markdown(reference) : reference.json_schema().dump(2) + "\n");
  return Exit::good;
}

}  // namespace

void add_schema(CLI::App& root, Run& chosen) {
  static const std::map<std::string, Output> kNames{{"json", Output::json}, {"markdown", Output::markdown}};
  auto* command = root.add_subcommand("schema", "Print the JSON Schema of configuration files, for editors");
  auto output = std::make_shared<Output>(Output::json);
  command->add_option("--format", *output, "json: a JSON Schema (2020-12); markdown: docs/reference/configuration.md")
      ->transform(one_of(kNames))
      ->type_name("json|markdown")
      ->default_str("json");
  command->footer(
      "Examples:\n  prism schema > prism.schema.json\n\n"
      "A file that begins with '# yaml-language-server: $schema=prism.schema.json' is then completed and checked by\n"
      "editors with a YAML language server.");
  command->callback([&chosen, output] { chosen = [output] { return schema(*output); }; });
}

}  // namespace prism::cli
