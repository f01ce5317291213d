#include "config/diagnostics.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "config/document.h"
#include "config/json_text.h"

namespace prism::config {

namespace {

// What is quoted from a file may hold line breaks, or be cut within a character.
std::string one_line(std::string text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_sequence(std::string_view(text).substr(i));
    const auto c = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      if ((c & 0xC0U) != 0x80U) out += '?';  // once for a character
    } else if (c < 0x20 || c == 0x7F) {
      out += ' ';
    } else {
      out.append(text, i, length);
    }
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

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
  diagnostic.message = one_line(std::move(diagnostic.message));
  diagnostic.hint = one_line(std::move(diagnostic.hint));
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

std::vector<Diagnostic> Diagnostics::sorted() const {
  std::vector<std::size_t> order(items_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto place = [this](std::size_t i) {
    const SourcePosition& at = items_[i].position;
    return std::tuple(at.file(), at.line, at.column, i);
  };
  std::ranges::sort(order, std::less<>(), place);
  std::vector<Diagnostic> out;
  out.reserve(order.size());
  for (const std::size_t i : order) out.push_back(items_[i]);
  return out;
}

bool Diagnostics::has(std::string_view reason) const noexcept {
  return std::ranges::any_of(items_, [&](const Diagnostic& item) { return item.reason == reason; });
}

Error Diagnostics::to_error() const {
  for (const Diagnostic& item : sorted()) {
    if (item.severity != Severity::error) continue;
    std::string message = item.position.to_string();
    if (!message.empty()) message += ": ";
    message += item.message;
    if (errors_ > 1)
      message += " (and " + std::to_string(errors_ - 1) + (errors_ == 2 ? " more error)" : " more errors)");
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
  for (const Diagnostic& item : diagnostics.sorted()) out += format_text(item);
  return out;
}

std::string format_json(const Diagnostics& diagnostics) {
  std::string out = "[";
  bool first = true;
  for (const Diagnostic& item : diagnostics.sorted()) {
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
