// What is wrong with a configuration file: all of it at once, each with its place, a stable reason, and a way to mend
// it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace prism::config {

// A place in a file. Lines and columns count from 1, columns in characters (not bytes); 0 means unknown. Cheap to copy.
struct SourcePosition {
  std::shared_ptr<const std::string> file_name;
  int line = 0;
  int column = 0;

  std::string_view file() const noexcept { return file_name ? std::string_view(*file_name) : std::string_view(); }
  std::string to_string() const;  // "prism.yaml:3:7"; without what is unknown
};

enum class Severity : std::uint8_t { error, warning };
std::string_view to_string(Severity) noexcept;

struct Diagnostic {
  Severity severity = Severity::error;
  SourcePosition position;
  std::string path;                                               // "namespaces[0].patterns[1].threshold"; may be empty
  std::string reason;                                             // stable, UPPER_SNAKE_CASE
  std::string message;                                            // one line; never a secret (see redact.h)
  std::string hint;                                               // how to mend it; one line, may be empty
  std::vector<std::pair<std::string, std::string>> details = {};  // names for programs ("first", "outbox"); never a
                                                                  // secret
};

class Node;

// Collects in the order of the checks; sorted() gives the order of the file. Not thread-safe.
class Diagnostics {
 public:
  void add(Diagnostic diagnostic);
  void error(SourcePosition at, std::string path, std::string reason, std::string message, std::string hint = {});
  void error(const Node& at, std::string reason, std::string message, std::string hint = {});
  void warning(const Node& at, std::string reason, std::string message, std::string hint = {});
  void append(const Diagnostics& other);

  bool has_errors() const noexcept { return errors_ != 0; }
  std::size_t error_count() const noexcept { return errors_; }
  bool empty() const noexcept { return items_.empty(); }
  const std::vector<Diagnostic>& items() const noexcept { return items_; }
  std::vector<Diagnostic> sorted() const;  // by file, line, column
  // What is to be shown: the first `most` in the order of sorted(), errors before warnings where not all fit; where
  // some do not, one more of reason TOO_MANY_ERRORS that says how many.
  static constexpr std::size_t kShown = 100;
  std::vector<Diagnostic> shown(std::size_t most = kShown) const;
  bool has(std::string_view reason) const noexcept;

  // The first error of the file (by place), with the rest counted in its message; for callers that can only carry one
  // Error. Code invalid_argument; metadata file, line, column, field. Call only if has_errors().
  Error to_error() const;

 private:
  std::vector<std::size_t> order() const;  // of sorted(), as places in items_

  std::vector<Diagnostic> items_;
  std::size_t errors_ = 0;
};

// "file:line:column: error: message [REASON]\n  hint: ...\n"
std::string format_text(const Diagnostic&);
std::string format_text(const Diagnostics&);  // of shown()
// Of shown(), an array of {"severity","file","line","column","path","reason","message","hint"}, one object a line; with
// "details", an object of texts, where there are any.
std::string format_json(const Diagnostics&);

}  // namespace prism::config
