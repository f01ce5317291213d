#include "config/diagnostics.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "config/document.h"
#include "config/json_text.h"
#include "config/redact.h"

namespace prism::config {

namespace {

// Of what may quote a file.
std::string presentable(const std::string& text) { return made_visible(redacted_words(text)); }

}  // namespace

std::string SourcePosition::to_string() const {
  std::string out(file());
  if (line <= 0) return out;
  if (!out.empty()) out += ':';
  out += std::to_string(line);
  if (column > 0) out += ':' + std::to_string(column);
  return out;
}

std::string_view to_string(Severity severity) noexcept { return severity == Severity::error ? "error" : "warning"; }

void Diagnostics::add(Diagnostic diagnostic) {
  if (diagnostic.severity == Severity::error) ++errors_;
  diagnostic.path = presentable(diagnostic.path);
  diagnostic.message = presentable(diagnostic.message);
  diagnostic.hint = presentable(diagnostic.hint);
  items_.push_back(std::move(diagnostic));
}

void Diagnostics::error(SourcePosition at, std::string path, std::string reason, std::string message,
                        std::string hint) {
  add({Severity::error, std::move(at), std::move(path), std::move(reason), std::move(message), std::move(hint)});
}

void Diagnostics::error(const Node& at, std::string reason, std::string message, std::string hint) {
  error(at.position(), at.path(), std::move(reason), std::move(message), std::move(hint));
}

void Diagnostics::warning(const Node& at, std::string reason, std::string message, std::string hint) {
  add({Severity::warning, at.position(), at.path(), std::move(reason), std::move(message), std::move(hint)});
}

void Diagnostics::append(const Diagnostics& other) {
  for (const Diagnostic& item : other.items_) add(item);
}

std::vector<std::size_t> Diagnostics::order() const {
  std::vector<std::size_t> out(items_.size());
  std::iota(out.begin(), out.end(), std::size_t{0});
  std::ranges::sort(out, std::less<>(), [this](std::size_t i) {
    const SourcePosition& at = items_[i].position;
    return std::tuple(at.file(), at.line, at.column, i);
  });
  return out;
}

std::vector<Diagnostic> Diagnostics::sorted() const {
  std::vector<Diagnostic> out;
  out.reserve(items_.size());
  for (const std::size_t i : order()) out.push_back(items_[i]);
  return out;
}

std::vector<Diagnostic> Diagnostics::shown(std::size_t most) const {
  std::size_t room_for_errors = std::min(most, errors_);
  std::size_t room_for_warnings = std::min(most - room_for_errors, items_.size() - errors_);
  const std::size_t left_errors = errors_ - room_for_errors;
  const std::size_t left_warnings = items_.size() - errors_ - room_for_warnings;
  std::vector<Diagnostic> out;
  for (const std::size_t i : order()) {
    std::size_t& room = items_[i].severity == Severity::error ? room_for_errors : room_for_warnings;
    if (room == 0) continue;
    --room;
    out.push_back(items_[i]);
  }
  if (left_errors + left_warnings == 0) return out;
  const std::string errors = left_errors == 0 ? "" : counted(left_errors, "more error");
  const std::string warnings = left_warnings == 0 ? "" : counted(left_warnings, "more warning");
  out.push_back({.severity = left_errors != 0 ? Severity::error : Severity::warning,
                 .position = {items_.front().position.file_name, 0, 0},
                 .path = {},
                 .reason = "TOO_MANY_ERRORS",
                 .message = errors + (errors.empty() || warnings.empty() ? "" : " and ") + warnings +
                            (left_errors + left_warnings == 1 ? " is" : " are") + " not shown",
                 .hint = "mend these first"});
  return out;
}

bool Diagnostics::has(std::string_view reason) const noexcept {
  return std::ranges::any_of(items_, [&](const Diagnostic& item) { return item.reason == reason; });
}

Error Diagnostics::to_error() const {
  for (const std::size_t i : order()) {
    const Diagnostic& item = items_[i];
    if (item.severity != Severity::error) continue;
    std::string message = item.position.to_string();
    if (!message.empty()) message += ": ";
    message += item.message;
    if (errors_ > 1) message += " (and " + counted(errors_ - 1, "more error") + ")";
    Error error{Code::invalid_argument, item.reason, std::move(message), item.hint, Retry::never, {}, {}};
    if (!item.position.file().empty()) error.metadata["file"] = std::string(item.position.file());
    if (item.position.line > 0) error.metadata["line"] = std::to_string(item.position.line);
    if (item.position.column > 0) error.metadata["column"] = std::to_string(item.position.column);
    if (!item.path.empty()) error.metadata["field"] = item.path;
    for (const auto& [name, value] : item.details) error.metadata[name] = value;
    return error;
  }
  return Error{
      Code::internal, "NO_CONFIGURATION_ERROR", "the configuration has no error to report", {}, Retry::never, {}, {}};
}

std::string format_text(const Diagnostic& item) {
  std::string out = item.position.to_string();
  if (!out.empty()) out += ": ";
  out += std::string(to_string(item.severity)) + ": " + item.message + " [" + item.reason + "]\n";
  if (!item.hint.empty()) out += "  hint: " + item.hint + "\n";
  return out;
}

std::string format_text(const Diagnostics& diagnostics) {
  std::string out;
  for (const Diagnostic& item : diagnostics.shown()) out += format_text(item);
  return out;
}

std::string format_json(const Diagnostics& diagnostics) {
  std::string out = "[";
  bool first = true;
  for (const Diagnostic& item : diagnostics.shown()) {
    out += first ? "\n" : ",\n";
    first = false;
    out += R"({"severity":)" + json_quote(to_string(item.severity)) + R"(,"file":)" + json_quote(item.position.file()) +
           R"(,"line":)" + std::to_string(item.position.line) + R"(,"column":)" + std::to_string(item.position.column) +
           R"(,"path":)" + json_quote(item.path) + R"(,"reason":)" + json_quote(item.reason) + R"(,"message":)" +
           json_quote(item.message) + R"(,"hint":)" + json_quote(item.hint);
    for (std::size_t i = 0; i < item.details.size(); ++i) {
      out += (i == 0 ? R"(,"details":{)" : ",") + json_quote(item.details[i].first) + ":" +
             json_quote(item.details[i].second);
    }
    out += item.details.empty() ? "}" : "}}";
  }
  return out + (first ? "]" : "\n]");
}

}  // namespace prism::config
