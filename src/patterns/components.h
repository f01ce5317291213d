// The table of what this program is built from: backends and patterns, filled from components.def in components.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "capabilities/backend.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "patterns/pattern.h"
#include "runtime/loop.h"

namespace prism::config {
struct SchemaInfo;
}

namespace prism {

class Assembly;

// The namespace around a pattern's options.
struct Surroundings {
  std::string log;                        // name of the backend of its messages; empty: none is named
  const BackendType* log_type = nullptr;  // null: unknown
  std::string backend;                    // name in its `backend:`; empty: not given
  std::string topic, topic_prefix;        // of its `backend:`; empty: not given
  std::vector<std::string> consumer_groups;
};

// What only one namespace may have, since its jobs deal with everything that they find there.
struct Holding {
  enum class Kind : std::uint8_t { objects, table };
  Kind kind = Kind::objects;
  std::string backend;
  std::string container;  // of objects: the bucket
  std::string name;       // the prefix, or the table
  std::string shown;      // what it is, for people, with substituted values as they are written
  config::Node at;        // where it is named; where it is a default, the pattern's options
};

struct PatternType {
  PatternInfo info;
  // Checks the options of one entry; says everything that is wrong with them.
  std::function<void(const config::Node& options, config::Diagnostics&)> validate;
  std::shared_ptr<const config::SchemaInfo> options;  // what `validate` accepts, for the reference; null: no options
  // Both may be null. Options are valid. review() says what contradicts the rest of the namespace, and warns of what is
  // allowed and surprising in it.
  std::function<void(const config::Node& options, const Surroundings&, config::Diagnostics&)> review;
  std::function<std::vector<Holding>(const config::Node& options, std::string_view namespace_name)> holdings;
  // Options are valid.
  std::function<std::unique_ptr<Pattern>(const config::Node& options)> make;
  // Undoes on the way in what records say was done to them; part of every namespace, whatever its chain, since chains
  // change and records stay. May be null.
  std::function<std::unique_ptr<Subscriber>(std::unique_ptr<Subscriber> next, Assembly& assembly)> decode;
};

struct Components {
  // What the table has of this name already, and what it is given now, become one: the twin's `embed`, everything else
  // of the entry that connects. Else what the other lacks.
  void add(BackendType type);
  std::vector<BackendType> backends;
  std::vector<PatternType> patterns;
  const BackendType* backend(std::string_view name_or_alias) const;
  const PatternType* pattern(std::string_view name) const;
};

// Defined in components.cc.
const Components& components();

}  // namespace prism
