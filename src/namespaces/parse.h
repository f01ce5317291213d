// From a configuration file to the typed model: every spelling of RFC-009 and RFC-014, all mistakes at once.
//
// Reasons of its own, beside those of config/document.h and config/schema.h: UNKNOWN_PATTERN, PATTERN_NOT_AVAILABLE
// (known, but not part of this program), DUPLICATE_PATTERN, SECTION_WITHOUT_PATTERN, UNKNOWN_BACKEND,
// DUPLICATE_NAMESPACE, DUPLICATE_GROUP, CLIENT_API_CONFLICT, CONTRADICTING_OPTIONS, OPTION_NOT_AVAILABLE; the warning
// NO_NAMESPACES; those of composition.h and review.h. Patterns and backends add the reasons of their options.
#pragma once

#include <string>
#include <string_view>

#include "config/diagnostics.h"
#include "config/document.h"
#include "namespaces/model.h"
#include "patterns/components.h"

namespace prism {

struct ParsedFile {
  FileSpec file;  // complete only if ok()
  config::Diagnostics diagnostics;

  bool ok() const noexcept { return !diagnostics.has_errors(); }
  // false: the file itself cannot be read. (A ${file:...} in it that cannot has the same reason, and a place.)
  bool readable() const noexcept;
};

// `components` says which patterns and backends there are and checks the patterns' options; it is not kept.
ParsedFile parse_file(const std::string& path, const Components& components, config::LoadOptions options = {});
ParsedFile parse_text(std::string_view text, const Components& components, config::LoadOptions options = {});

}  // namespace prism
