// What the parser of files knows beside the options of patterns and backends: how patterns are called, where their
// options may stand, and the sections that belong to none. Declared in parse.cc; the reference is made from it.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>

#include "config/schema.h"

namespace prism {

// How the RFCs name a pattern and where its options may stand. This is a vocabulary: which patterns the program has is
// for the components to say, but a pattern that it does not have must still be told from a misspelt one.
struct PatternSyntax {
  std::string_view name;
  std::string_view alias;                        // may be empty
  std::string_view section;                      // its keys are options: claim_check: {threshold: ...}
  std::array<std::string_view, 4> own_sections;  // each is an option by itself: cleanup: {...}
};

std::span<const PatternSyntax> pattern_syntax();

struct FileSchemas {
  std::shared_ptr<const config::SchemaInfo> file;         // the file as a whole
  std::shared_ptr<const config::SchemaInfo> name_space;   // one entry of `namespaces:`, without the patterns' sections
  std::shared_ptr<const config::SchemaInfo> backend_use;  // a namespace's `backend:` as a map
  std::shared_ptr<const config::SchemaInfo> pub_sub;      // the pub-sub pattern, which is no component
};

FileSchemas file_schemas();

}  // namespace prism
