// A YAML text as an immutable tree that knows where everything stands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/diagnostics.h"

namespace prism::config {

struct NodeData;
struct NodePath;
struct Entry;

// A handle on one value (one reference count); the tree lives as long as any handle on it. Safe to share between
// threads.
class Node {
 public:
  enum class Kind : std::uint8_t { null, scalar, sequence, map };

  Node();  // null, nowhere

  Kind kind() const noexcept;
  bool is_null() const noexcept { return kind() == Kind::null; }
  bool is_scalar() const noexcept { return kind() == Kind::scalar; }
  bool is_sequence() const noexcept { return kind() == Kind::sequence; }
  bool is_map() const noexcept { return kind() == Kind::map; }

  // The scalar's text after substitution; empty for other kinds. May hold a secret: never print it, print display().
  const std::string& text() const noexcept;
  // Written with quotes or as a block scalar: never null, boolean or number by itself.
  bool quoted() const noexcept;
  // Some of the text came from ${env:...} or ${file:...}.
  bool substituted() const noexcept;
  // A scalar that could not be substituted: that was reported, and nothing is to be said of the value itself.
  bool broken() const noexcept;
  // The text as written in the file: with ${env:...} and ${file:...} instead of what they stand for, and ${ as $${.
  std::string written() const;
  // As written in the file (substitutions by name, secrets redacted), one line of at most 60 characters, in quotes; "a
  // list", "a map", "nothing" else.
  std::string display() const;
  // Nothing but display() may be said of the text: it was substituted, or holds a secret.
  bool hidden() const;

  std::span<const Node> items() const noexcept;     // of a sequence, else empty
  std::span<const Entry> entries() const noexcept;  // of a map, in the order of the file, keys unique; else empty
  const Node* find(
      std::string_view key) const noexcept;  // value of a map's key; nullptr if there is none. Lives as long as this
  const Entry* entry(std::string_view key) const noexcept;  // the same with the key's position

  const SourcePosition& position() const noexcept;
  // Where the value stands ("namespaces[0].backend"). What comes by a YAML alias has the path of its anchor.
  std::string path() const;
  std::string path_of(std::string_view key) const;  // of a key of this map, present or not

  // Values that no file holds: for views that put the sections of one thing together.
  static Node make_map(std::vector<Entry> entries, const Node& standing_at);
  static Node make_map(std::vector<Entry> entries, const Node& parent, std::string key, SourcePosition position);
  static Node make_scalar(std::string text, const Node& standing_at);
  static Node make_plain(std::string text, const Node& standing_at);  // as if written without quotes: may be a number
  static Node make_list(std::vector<Node> items, const Node& standing_at);
  // written() is `written`, which has ${env:...} in it; text() is empty.
  static Node make_substituted(std::string written, const Node& standing_at);

 private:
  friend class TreeBuilder;
  explicit Node(std::shared_ptr<const NodeData> data) : data_(std::move(data)) {}

  std::shared_ptr<const NodeData> data_;  // never null
};

struct Entry {
  std::string key;
  SourcePosition key_position;
  Node value;
};

struct LoadOptions {
  // What stands before the line in messages.
  std::string file_name = "<text>";
  // Where relative ${file:...} paths start; empty: the working directory. load_file() sets it to the file's own folder.
  std::string base_directory;
  // ${env:NAME}; by default the process's environment.
  std::function<std::optional<std::string>(const std::string& name)> environment;
  std::size_t max_bytes = std::size_t{4} << 20;
  std::size_t max_nodes = 200'000;  // after the expansion of aliases
  std::size_t max_depth = 64;
  // Give the tree in spite of mistakes that concern single values (DUPLICATE_KEY: the first stands; a substitution that
  // failed: Node::broken), so that the rest can be checked too. `diagnostics` then has errors.
  bool keep_going = false;

  LoadOptions of_file(const std::string& path) const;  // the same for the text of this file
};

// nullopt if there was an error (but see keep_going); all errors of the text that can be told apart are added to
// `diagnostics`. Reasons:
// SYNTAX_ERROR, DUPLICATE_KEY, DOCUMENT_TOO_LARGE, DOCUMENT_TOO_DEEP, INVALID_TEXT (not UTF-8, control characters),
// INVALID_KEY, INVALID_MERGE, INVALID_ALIAS, UNSUPPORTED_TAG, SEVERAL_DOCUMENTS, UNKNOWN_SUBSTITUTION,
// MISSING_VARIABLE, UNREADABLE_FILE.
//
// In values (not keys), ${env:NAME} and ${file:PATH} are replaced (a file's last line break is dropped); $${ is a
// literal ${. Anchors, aliases and merge keys (<<) work; what was merged in does not override what stands there.
std::optional<Node> load_text(std::string_view text, const LoadOptions& options, Diagnostics& diagnostics);
std::optional<Node> load_file(const std::string& path, LoadOptions options, Diagnostics& diagnostics);
// The text alone, and a little more than `max_bytes` of it at most (which load_text refuses). UNREADABLE_FILE.
std::optional<std::string> read_file(const std::string& path, std::size_t max_bytes, Diagnostics& diagnostics);

}  // namespace prism::config
