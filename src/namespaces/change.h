// What one configuration changes of another, option by option: by meaning, not by spelling (1MB and 1000kB are the
// same, and so is a value and its default).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/schema.h"
#include "namespaces/model.h"
#include "patterns/components.h"

namespace prism {

struct OptionValue {
  std::string meaning;  // equal texts mean the same; may hold a secret: never printed
  std::string shown;    // for people; a secret by the name that the file refers to it
  friend bool operator==(const OptionValue& a, const OptionValue& b) noexcept { return a.meaning == b.meaning; }
};
// By path ("outbox.publisher.batch_size"). What is not given has its default.
using OptionValues = std::map<std::string, OptionValue>;

OptionValues options_of(const NamespaceSpec& ns, const Components& components);
OptionValues options_of(const BackendSpec& backend, const Components& components);

enum class ChangeKind : std::uint8_t { added, removed, changed };
std::string_view to_string(ChangeKind) noexcept;

struct OptionChange {
  std::string option;
  std::string before, after;  // as people write it; empty: not given
};

struct PartChange {
  enum class Part : std::uint8_t { server, telemetry, backend, name_space };
  Part part = Part::name_space;
  std::string name;  // of the namespace or backend; empty: the server or telemetry section
  ChangeKind kind = ChangeKind::changed;
  std::vector<OptionChange> options;  // of a namespace that was added or removed: the patterns and backend only
  // Takes effect only when the process starts again: addresses, the data folder, where traces go.
  bool needs_restart() const noexcept { return part == Part::server || part == Part::telemetry; }
};
std::string_view to_string(PartChange::Part) noexcept;  // "server", "telemetry", ...

// In the order server, telemetry, backends, namespaces; by name. Empty: nothing changes.
std::vector<PartChange> compare(const FileSpec& from, const FileSpec& to, const Components& components);

// For people, a line an option; ends with a line break unless it is empty.
std::string format_text(const std::vector<PartChange>& changes);

}  // namespace prism
