#include "config/document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "config/redact.h"

namespace prism::config {

// A path as a linked list: O(1) a value however deep it stands and however long its keys are.
struct NodePath {
  std::shared_ptr<const NodePath> parent;
  std::string key;  // of a map's value
  std::size_t index = 0;
  bool in_sequence = false;
};

struct NodeData {
  Node::Kind kind = Node::Kind::null;
  bool quoted = false;
  bool substituted = false;
  bool broken = false;
  std::string text;
  std::string written;  // the text before substitution, if anything was substituted
  std::vector<Node> items;
  std::vector<Entry> entries;
  SourcePosition position;
  std::shared_ptr<const NodePath> path;
  std::size_t weight = 1;  // values in this subtree, aliases expanded
};

namespace {

constexpr std::size_t kMaxKeyBytes = 1024;
constexpr std::size_t kMaxSubstitutedFile = std::size_t{1} << 20;
constexpr std::size_t kMaxSubstitutedBytes = std::size_t{4} << 20;  // of one scalar
constexpr std::size_t kMaxErrors = 100;

std::string render(const NodePath* path) {
  std::vector<const NodePath*> steps;
  for (; path != nullptr; path = path->parent.get()) steps.push_back(path);
  std::string out;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if ((*step)->in_sequence) {
      out += '[' + std::to_string((*step)->index) + ']';
    } else {
      if (!out.empty()) out += '.';
      out += (*step)->key;
    }
  }
  return out;
}

// Is this the value of an option that is a secret by its name?
bool of_secret(const NodePath* path) {
  while (path != nullptr && path->in_sequence) path = path->parent.get();
  return path != nullptr && names_a_secret(path->key);
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0U) == 0x80U; }

// The byte at which `text` stops being UTF-8 without control characters (tab and line breaks excepted), or npos.
std::size_t first_bad_byte(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) return i;
      ++i;
      continue;
    }
    const std::size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || i + length > text.size()) return i;
    for (std::size_t k = 1; k < length; ++k) {
      if (!is_continuation(text[i + k])) return i;
    }
    const auto second = static_cast<unsigned char>(text[i + 1]);
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
        (c == 0xf4 && second > 0x8f)) {
      return i;  // overlong, a surrogate, or beyond U+10FFFF
    }
    i += length;
  }
  return std::string_view::npos;
}

struct LoadFailure {  // thrown by the handler through the YAML parser, caught in load_text
  SourcePosition at;
  std::string path, reason, message, hint;
};

// Line starts, to count columns in characters.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {
    starts_.push_back(0);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') starts_.push_back(i + 1);
    }
  }
  // The column, from 1, of the byte at `offset` (from 0) of `line` (from 0).
  int column(int line, int offset) const {
    if (line < 0 || offset < 0) return 0;
    if (static_cast<std::size_t>(line) >= starts_.size()) return offset + 1;
    const std::size_t start = starts_[static_cast<std::size_t>(line)];
    const std::size_t end = std::min(text_.size(), start + static_cast<std::size_t>(offset));
    int column = 1;
    for (std::size_t i = start; i < end; ++i) column += is_continuation(text_[i]) ? 0 : 1;
    return column;
  }
  // The byte at `offset` of `line`, both from 0.
  std::size_t byte(int line, int offset) const {
    if (line < 0 || offset < 0 || static_cast<std::size_t>(line) >= starts_.size()) return text_.size();
    return std::min(text_.size(), starts_[static_cast<std::size_t>(line)] + static_cast<std::size_t>(offset));
  }
  // The first of the lines up to `line` (from 0), in this and the one before it, that begins with a tab; from 1. 0:
  // none.
  int tab_near(int line) const {
    for (int i = std::max(0, line - 1); i <= line && static_cast<std::size_t>(i) < starts_.size(); ++i) {
      const std::string_view rest = text_.substr(starts_[static_cast<std::size_t>(i)]);
      const std::string_view indent = rest.substr(0, rest.find_first_not_of(" \t"));
      if (indent.find('\t') != std::string_view::npos) return i + 1;
    }
    return 0;
  }
  // Does the quoted text that begins at this byte end? (The YAML parser takes the end of the file for its quote.)
  bool quote_ends(std::size_t begin) const {
    if (begin >= text_.size() || (text_[begin] != '"' && text_[begin] != '\'')) return true;
    const char quote = text_[begin];
    for (std::size_t i = begin + 1; i < text_.size(); ++i) {
      if (quote == '"' && text_[i] == '\\') {
        ++i;
      } else if (text_[i] == quote) {
        if (quote == '"' || i + 1 == text_.size() || text_[i + 1] != quote) return true;
        ++i;
      }
    }
    return false;
  }
  std::pair<int, int> place(std::size_t byte) const {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), byte);
    const int line = static_cast<int>(after - starts_.begin()) - 1;
    return {line + 1, column(line, static_cast<int>(byte - starts_[static_cast<std::size_t>(line)]))};
  }

 private:
  std::string_view text_;
  std::vector<std::size_t> starts_;
};

}  // namespace

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const LoadOptions& options, const Lines& lines, std::shared_ptr<const std::string> file,
              Diagnostics& diagnostics)
      : options_(options), lines_(lines), file_(std::move(file)), diagnostics_(diagnostics) {
    NodeData empty;  // what a text without any value gives
    empty.position = {file_, 1, 1};
    root_ = Node(std::make_shared<const NodeData>(std::move(empty)));
  }

  SourcePosition at(const YAML::Mark& mark) const {
    if (mark.is_null() || mark.line < 0) return {file_, 1, 1};
    return {file_, mark.line + 1, lines_.column(mark.line, mark.column)};
  }
  bool complete() const { return complete_; }
  const Node& root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (complete_) {
      throw LoadFailure{at(mark),
                        {},
                        "SEVERAL_DOCUMENTS",
                        "the text holds more than one YAML document",
                        "keep one document; put all namespaces under one 'namespaces:' list"};
    }
  }
  void OnDocumentEnd() override { complete_ = true; }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    count(1, mark);
    if (expects_key()) return take_key(mark, {}, false);
    NodeData data;
    // The parser's mark of a value that is not there is that of what follows: the key is the better place.
    const bool of_key = !frames_.empty() && frames_.back().data.kind == Node::Kind::map;
    data.position = of_key ? frames_.back().key_position : at(mark);
    data.path = next_path();
    finish(std::move(data), anchor, mark);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool plain = tag.empty() || tag == "?" || is_core_number_tag(tag);
    if (!plain && tag != "!" && tag != kStringTag) unsupported_tag(mark, tag);
    if (tag == "!" && !lines_.quote_ends(lines_.byte(mark.line, mark.column))) {
      throw LoadFailure{at(mark), path_here(), "SYNTAX_ERROR", "this quote is not closed",
                        "put the same quote behind the text; one inside of it is written twice ('') or after a "
                        "backslash (\\\")"};
    }
    count(1, mark);
    if (expects_key()) {
      if (anchor != YAML::NullAnchor) anchors_.insert_or_assign(anchor, Anchored{});
      return take_key(mark, value, plain);
    }
    NodeData data;
    data.position = at(mark);
    data.path = next_path();
    data.quoted = !plain;
    if (plain && is_null_text(value)) {
      return finish(std::move(data), anchor, mark);
    }
    data.kind = Node::Kind::scalar;
    data.text = value;
    substitute(data);
    finish(std::move(data), anchor, mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) {
      throw LoadFailure{at(mark), path_here(), "INVALID_KEY", "an alias cannot be a key", "write the key itself"};
    }
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end() || !found->second.node) {
      throw LoadFailure{at(mark), path_here(), "INVALID_ALIAS", "the alias refers to a value that is not complete",
                        "an alias may only repeat a value that ended before it"};
    }
    const Node node = *found->second.node;
    count(node.data_->weight, mark);
    place(node, mark);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::sequence, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  static constexpr std::string_view kStringTag = "tag:yaml.org,2002:str";

  struct Anchored {
    std::optional<Node> node;  // none while the value is open, or if it was a key
  };
  struct Frame {
    NodeData data;
    YAML::anchor_t anchor = 0;
    YAML::Mark mark;
    bool has_key = false;
    bool skip_value = false;  // of a duplicate key
    bool merge = false;       // the value of "<<"
    std::string key;
    SourcePosition key_position;
    std::unordered_map<std::string, int> seen;  // key -> line
    std::vector<Node> merged;
  };

  static bool is_core_number_tag(std::string_view tag) {
    return tag == "tag:yaml.org,2002:int" || tag == "tag:yaml.org,2002:bool" || tag == "tag:yaml.org,2002:float" ||
           tag == "tag:yaml.org,2002:null";
  }
  static bool is_null_text(std::string_view text) {
    return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
  }

  [[noreturn]] void unsupported_tag(const YAML::Mark& mark, const std::string& tag) const {
    throw LoadFailure{at(mark), path_here(), "UNSUPPORTED_TAG",
                      "the YAML tag '" + quotable(tag, 60) + "' is not supported", "remove the tag"};
  }

  bool expects_key() const {
    return !frames_.empty() && frames_.back().data.kind == Node::Kind::map && !frames_.back().has_key;
  }

  // The path of the value that comes next.
  std::shared_ptr<const NodePath> next_path() const {
    if (frames_.empty()) return nullptr;
    const Frame& frame = frames_.back();
    auto path = std::make_shared<NodePath>();
    path->parent = frame.data.path;
    if (frame.data.kind == Node::Kind::map) {
      path->key = frame.key;
    } else {
      path->index = frame.data.items.size();
      path->in_sequence = true;
    }
    return path;
  }
  std::string path_here() const { return frames_.empty() ? std::string() : render(frames_.back().data.path.get()); }

  void count(std::size_t nodes, const YAML::Mark& mark) {
    nodes_ += nodes;
    if (nodes_ > options_.max_nodes) {
      throw LoadFailure{at(mark), path_here(), "DOCUMENT_TOO_LARGE",
                        "the document holds more than " + std::to_string(options_.max_nodes) +
                            " values once its aliases are expanded",
                        "a process reads one file: give some of the namespaces to another process, with a file of "
                        "its own, or repeat less by aliases"};
    }
  }

  void report(SourcePosition position, std::string path, std::string reason, std::string message, std::string hint) {
    if (diagnostics_.error_count() >= kMaxErrors) {
      throw LoadFailure{std::move(position), std::move(path), "TOO_MANY_ERRORS", "there are more errors than are shown",
                        "mend these first"};
    }
    diagnostics_.error(std::move(position), std::move(path), std::move(reason), std::move(message), std::move(hint));
  }

  void take_key(const YAML::Mark& mark, const std::string& value, bool plain) {
    Frame& frame = frames_.back();
    if (value.empty() || value.size() > kMaxKeyBytes) {
      throw LoadFailure{at(mark), path_here(), "INVALID_KEY",
                        value.empty() ? "a key is missing" : "the key is too long",
                        value.empty() ? "write a name before the colon" : ""};
    }
    frame.has_key = true;
    frame.key = value;
    frame.key_position = at(mark);
    frame.merge = plain && value == "<<";
    const auto [earlier, is_new] = frame.seen.try_emplace(value, frame.key_position.line);
    frame.skip_value = !is_new;
    if (!is_new) {
      const std::string path = path_here();
      report(frame.key_position, path.empty() ? value : path + "." + value, "DUPLICATE_KEY",
             "'" + quotable(value, 60) + "' is given twice, in line " + std::to_string(earlier->second) +
                 " and in line " + std::to_string(frame.key_position.line),
             "keep one of them");
    }
  }

  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (!tag.empty() && tag != "?" && tag != "!" && tag != "tag:yaml.org,2002:map" && tag != "tag:yaml.org,2002:seq") {
      unsupported_tag(mark, tag);
    }
    if (expects_key()) {
      throw LoadFailure{at(mark), path_here(), "INVALID_KEY", "a list or a map cannot be a key",
                        "use a plain name as the key"};
    }
    if (frames_.size() >= options_.max_depth) {
      throw LoadFailure{at(mark), path_here(), "DOCUMENT_TOO_DEEP",
                        "values are nested more than " + std::to_string(options_.max_depth) + " levels deep",
                        "flatten them: nothing in a configuration is as deep"};
    }
    count(1, mark);
    Frame frame;
    frame.data.kind = kind;
    frame.data.position = at(mark);
    frame.data.path = next_path();
    frame.anchor = anchor;
    frame.mark = mark;
    if (anchor != YAML::NullAnchor) anchors_.insert_or_assign(anchor, Anchored{});
    frames_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    if (!frame.merged.empty()) {
      std::unordered_set<std::string> present;
      for (const Entry& entry : frame.data.entries) present.insert(entry.key);
      for (const Node& source : frame.merged) {
        for (const Entry& entry : source.entries()) {
          if (!present.insert(entry.key).second) continue;
          count(entry.value.data_->weight, frame.mark);
          frame.data.entries.push_back(entry);
        }
      }
    }
    for (const Node& item : frame.data.items) frame.data.weight += item.data_->weight;
    for (const Entry& entry : frame.data.entries) frame.data.weight += entry.value.data_->weight;
    finish(std::move(frame.data), frame.anchor, frame.mark);
  }

  void finish(NodeData data, YAML::anchor_t anchor, const YAML::Mark& mark) {
    const Node node(std::make_shared<const NodeData>(std::move(data)));
    if (anchor != YAML::NullAnchor) anchors_.insert_or_assign(anchor, Anchored{node});
    place(node, mark);
  }

  void place(const Node& node, const YAML::Mark& mark) {
    if (frames_.empty()) {
      root_ = node;
      return;
    }
    Frame& frame = frames_.back();
    if (frame.data.kind == Node::Kind::sequence) {
      frame.data.items.push_back(node);
      return;
    }
    frame.has_key = false;
    if (frame.skip_value) return;
    if (!frame.merge) {
      frame.data.entries.push_back({std::move(frame.key), frame.key_position, node});
      return;
    }
    bool mergeable = node.is_map();
    if (node.is_map()) {
      frame.merged.push_back(node);
    } else if (node.is_sequence()) {
      mergeable = std::ranges::all_of(node.items(), [](const Node& item) { return item.is_map(); });
      frame.merged.insert(frame.merged.end(), node.items().begin(), node.items().end());
    }
    if (!mergeable) {
      throw LoadFailure{at(mark), path_here(), "INVALID_MERGE", "'<<' takes a map or a list of maps",
                        "write <<: *anchor, where the anchor stands on a map"};
    }
  }

  // Replaces ${env:NAME} and ${file:PATH}. Errors are collected; the text is then left as it is, and broken.
  void substitute(NodeData& data) {
    const std::string& text = data.text;
    if (text.find("${") == std::string::npos) return;
    data.broken = true;  // until all is well
    std::string out;
    bool substituted = false;
    std::size_t i = 0;
    while (i < text.size()) {
      if (text.compare(i, 3, "$${") == 0) {
        out += "${";
        i += 3;
        continue;
      }
      if (text.compare(i, 2, "${") != 0) {
        out += text[i++];
        continue;
      }
      const std::size_t end = text.find('}', i);
      const std::string name = text.substr(i + 2, end == std::string::npos ? std::string::npos : end - i - 2);
      if (end == std::string::npos || name.empty()) {
        return report(data.position, render(data.path.get()), "UNKNOWN_SUBSTITUTION",
                      "'${' without a name and a closing '}'",
                      "write ${env:NAME} or ${file:PATH}; $${ is a literal ${");
      }
      auto value = resolve(name, data);
      if (!value) return;
      out += *value;
      substituted = true;
      i = end + 1;
      if (out.size() > kMaxSubstitutedBytes) {
        return report(data.position, render(data.path.get()), "DOCUMENT_TOO_LARGE",
                      "the substituted text is above 4MiB", {});
      }
    }
    if (substituted) {
      data.written = std::move(data.text);
      data.substituted = true;
    }
    data.text = std::move(out);
    data.broken = false;
  }

  std::optional<std::string> resolve(const std::string& name, const NodeData& data) {
    const auto refuse = [&](std::string reason, std::string message, std::string hint) -> std::optional<std::string> {
      report(data.position, render(data.path.get()), std::move(reason), std::move(message), std::move(hint));
      return std::nullopt;
    };
    const std::string shown = quotable(name, 60);
    if (name.starts_with("env:") && name.size() > 4) {
      const std::string variable = name.substr(4);
      auto value = options_.environment ? options_.environment(variable) : from_environment(variable);
      if (value && first_bad_byte(*value) != std::string::npos) {
        return refuse("INVALID_TEXT", "the value of ${" + shown + "} is not plain UTF-8 text", {});
      }
      if (value) return value;
      return refuse("MISSING_VARIABLE", "the environment variable '" + shown.substr(4) + "' is not set",
                    "set it before starting, or write the value in the file");
    }
    if (name.starts_with("file:") && name.size() > 5) {
      std::filesystem::path path(name.substr(5));
      if (path.is_relative() && !options_.base_directory.empty()) path = options_.base_directory / path;
      std::error_code error;
      const auto status = std::filesystem::status(path, error);
      if (error || !std::filesystem::is_regular_file(status)) {
        return refuse("UNREADABLE_FILE", "the file of ${" + shown + "} does not exist or is not a file",
                      "relative paths start in the folder of the configuration file");
      }
      std::ifstream in(path, std::ios::binary);
      std::string content(kMaxSubstitutedFile + 1, '\0');
      in.read(content.data(), static_cast<std::streamsize>(content.size()));
      content.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
      if (!in.is_open() || in.bad())
        return refuse("UNREADABLE_FILE", "the file of ${" + shown + "} cannot be read", {});
      if (content.size() > kMaxSubstitutedFile) {
        return refuse("UNREADABLE_FILE", "the file of ${" + shown + "} is above 1MiB", {});
      }
      if (first_bad_byte(content) != std::string::npos) {
        return refuse("INVALID_TEXT", "the file of ${" + shown + "} is not plain UTF-8 text", {});
      }
      if (content.ends_with('\n')) content.pop_back();
      if (content.ends_with('\r')) content.pop_back();
      return content;
    }
    const bool bare_name = std::ranges::all_of(name, [](char c) {
      return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    });
    return refuse("UNKNOWN_SUBSTITUTION", "'${" + shown + "}' is not known",
                  bare_name ? "did you mean ${env:" + shown + "}, or the placeholder {" + shown + "}?"
                            : "write ${env:NAME} or ${file:PATH}; $${ is a literal ${");
  }

  static std::optional<std::string> from_environment(const std::string& name) {
    // Read before any thread could change it: nothing in this program calls setenv.
    const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe)
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  }

  const LoadOptions& options_;
  const Lines& lines_;
  std::shared_ptr<const std::string> file_;
  Diagnostics& diagnostics_;
  std::vector<Frame> frames_;
  std::unordered_map<YAML::anchor_t, Anchored> anchors_;
  Node root_;
  std::size_t nodes_ = 0;
  bool complete_ = false;
};

namespace {

// What the YAML parser says, in words that say what to do.
std::pair<std::string, std::string> in_words(const std::string& said) {
  struct Known {
    std::string_view said, message, hint;
  };
  static constexpr std::string_view kIndent = "keys of one map begin in the same column, and so do the '-' of one list";
  static constexpr std::string_view kBefore =
      "keys of one map begin in the same column, and so do the '-' of one list; a quote may have ended too early";
  static constexpr std::array kKnown = {
      Known{"illegal map value", "a ':' makes this a key, and none may stand here",
            "put quotes around a value that has ': ' in it; keys of one map begin in the same column"},
      Known{"end of map not found", "this belongs to nothing that stands before it", kBefore},
      Known{"end of sequence not found", "this belongs to nothing that stands before it", kBefore},
      Known{"illegal block entry", "a '- ' may not stand here", kIndent},
      Known{"illegal map key", "a key may not stand here", kIndent},
      Known{"end of map flow not found", "a '{' is not closed before this place", "close it with '}'"},
      Known{"end of sequence flow not found", "a '[' is not closed before this place", "close it with ']'"},
      Known{"illegal flow end", "this bracket closes nothing", "remove it, or open it before"},
      Known{"unknown token", "a value cannot begin with this character", "put the value in quotes"},
      Known{"the referenced anchor is not defined", "no anchor of this name stands before its alias",
            "write &name at the value that it repeats, or put a value that begins with '*' in quotes"},
      Known{"alias not found after *", "a '*' makes an alias, and none is named",
            "put a value that begins with '*' in quotes"},
      Known{"anchor not found after &", "a '&' makes an anchor, and none is named",
            "put a value that begins with '&' in quotes"},
      Known{"illegal tab when looking for indentation", "a tab stands in the indentation", "indent with spaces"},
  };
  for (const Known& known : kKnown) {
    if (said == known.said) return {std::string(known.message), std::string(known.hint)};
  }
  if (said.starts_with("unknown escape character")) {
    return {said, "write \\\\ for a backslash, or put the text in single quotes"};
  }
  return {said, "look at the indentation, colons, quotes and brackets just before this place"};
}

const std::shared_ptr<const NodeData>& nowhere() {
  static const auto data = std::make_shared<const NodeData>();
  return data;
}

}  // namespace

Node::Node() : data_(nowhere()) {}
Node::Kind Node::kind() const noexcept { return data_->kind; }
const std::string& Node::text() const noexcept { return data_->text; }
bool Node::quoted() const noexcept { return data_->quoted; }
bool Node::substituted() const noexcept { return data_->substituted; }
bool Node::broken() const noexcept { return data_->broken; }
std::span<const Node> Node::items() const noexcept { return data_->items; }
std::span<const Entry> Node::entries() const noexcept { return data_->entries; }
const SourcePosition& Node::position() const noexcept { return data_->position; }
std::string Node::path() const { return render(data_->path.get()); }

std::string Node::path_of(std::string_view key) const {
  const std::string own = path();
  return own.empty() ? std::string(key) : own + "." + std::string(key);
}

std::string Node::written() const {
  if (data_->substituted) return data_->written;
  std::string out;
  for (std::size_t at = 0; at < data_->text.size(); ++at) {
    if (data_->text.compare(at, 2, "${") == 0) out += '$';
    out += data_->text[at];
  }
  return out;
}

std::string Node::display() const {
  switch (kind()) {
    case Kind::null:
      return "nothing";
    case Kind::sequence:
      return "a list";
    case Kind::map:
      return "a map";
    case Kind::scalar:
      break;
  }
  const std::string& text = data_->substituted ? data_->written : data_->text;
  if (of_secret(data_->path.get()) && !is_only_substitutions(text)) return "'" + std::string(kRedacted) + "'";
  return "'" + quotable(text) + "'";
}

bool Node::hidden() const {
  return data_->substituted || of_secret(data_->path.get()) || !secrets_in(data_->text).empty();
}

const Entry* Node::entry(std::string_view key) const noexcept {
  for (const Entry& candidate : data_->entries) {
    if (candidate.key == key) return &candidate;
  }
  return nullptr;
}

const Node* Node::find(std::string_view key) const noexcept {
  const Entry* found = entry(key);
  return found == nullptr ? nullptr : &found->value;
}

Node Node::make_map(std::vector<Entry> entries, const Node& standing_at) {
  NodeData data;
  data.kind = Kind::map;
  data.position = standing_at.data_->position;
  data.path = standing_at.data_->path;
  for (const Entry& entry : entries) data.weight += entry.value.data_->weight;
  data.entries = std::move(entries);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

Node Node::make_map(std::vector<Entry> entries, const Node& parent, std::string key, SourcePosition position) {
  auto path = std::make_shared<NodePath>();
  path->parent = parent.data_->path;
  path->key = std::move(key);
  NodeData data;
  data.kind = Kind::map;
  data.position = std::move(position);
  data.path = std::move(path);
  for (const Entry& entry : entries) data.weight += entry.value.data_->weight;
  data.entries = std::move(entries);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

Node Node::make_scalar(std::string text, const Node& standing_at) {
  NodeData data;
  data.kind = Kind::scalar;
  data.quoted = true;
  data.position = standing_at.data_->position;
  data.path = standing_at.data_->path;
  data.text = std::move(text);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

Node Node::make_plain(std::string text, const Node& standing_at) {
  NodeData data;
  data.kind = Kind::scalar;
  data.position = standing_at.data_->position;
  data.path = standing_at.data_->path;
  data.text = std::move(text);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

Node Node::make_list(std::vector<Node> items, const Node& standing_at) {
  NodeData data;
  data.kind = Kind::sequence;
  data.position = standing_at.data_->position;
  data.path = standing_at.data_->path;
  for (const Node& item : items) data.weight += item.data_->weight;
  data.items = std::move(items);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

Node Node::make_substituted(std::string written, const Node& standing_at) {
  NodeData data;
  data.kind = Kind::scalar;
  data.quoted = true;
  data.substituted = true;
  data.position = standing_at.data_->position;
  data.path = standing_at.data_->path;
  data.written = std::move(written);
  return Node(std::make_shared<const NodeData>(std::move(data)));
}

std::optional<Node> load_text(std::string_view text, const LoadOptions& options, Diagnostics& diagnostics) {
  const auto file = std::make_shared<const std::string>(options.file_name);
  if (text.size() > options.max_bytes) {
    diagnostics.error({file, 1, 1}, {}, "DOCUMENT_TOO_LARGE",
                      "the configuration is above " + std::to_string(options.max_bytes) + " bytes",
                      "a process reads one file: give some of the namespaces to another process, with a file of its "
                      "own");
    return std::nullopt;
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const Lines lines(text);
  if (const std::size_t bad = first_bad_byte(text); bad != std::string_view::npos) {
    const auto [line, column] = lines.place(bad);
    diagnostics.error({file, line, column}, {}, "INVALID_TEXT", "the text is not UTF-8, or holds a control character",
                      "save the file as UTF-8");
    return std::nullopt;
  }

  const std::size_t errors_before = diagnostics.error_count();
  TreeBuilder builder(options, lines, file, diagnostics);
  bool whole = false;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    // The second round finds what stands after the first document.
    while (parser.HandleNextDocument(builder)) {
    }
    whole = true;
  } catch (const LoadFailure& failure) {
    diagnostics.error(failure.at, failure.path, failure.reason, failure.message, failure.hint);
  } catch (const YAML::Exception& error) {
    auto [message, hint] = in_words(error.msg);
    if (const int line = lines.tab_near(error.mark.line); line > 0) {
      hint = "line " + std::to_string(line) + " is indented with a tab: use spaces";
    }
    diagnostics.error(builder.at(error.mark), {}, "SYNTAX_ERROR", "this is not valid YAML: " + message, hint);
  } catch (const std::exception& error) {
    diagnostics.error({file, 1, 1}, {}, "SYNTAX_ERROR", std::string("this is not valid YAML: ") + error.what(), {});
  }
  if (!whole || (diagnostics.error_count() != errors_before && !options.keep_going)) return std::nullopt;
  return builder.root();
}

std::optional<std::string> read_file(const std::string& path, std::size_t max_bytes, Diagnostics& diagnostics) {
  const SourcePosition start{std::make_shared<const std::string>(path), 0, 0};
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    diagnostics.error(start, {}, "UNREADABLE_FILE", "the file does not exist", "check the path");
    return std::nullopt;
  }
  if (std::filesystem::is_directory(status)) {
    diagnostics.error(start, {}, "UNREADABLE_FILE", "this is a folder, not a file", "name the YAML file in it");
    return std::nullopt;
  }
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) {
    diagnostics.error(start, {}, "UNREADABLE_FILE", std::string("the file cannot be opened: ") + std::strerror(errno),
                      {});
    return std::nullopt;
  }
  std::string text;
  std::string chunk(std::size_t{64} << 10, '\0');
  while (in && text.size() <= max_bytes) {  // a pipe has no size to ask for
    in.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    text.append(chunk, 0, static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) {
    diagnostics.error(start, {}, "UNREADABLE_FILE", "the file cannot be read", {});
    return std::nullopt;
  }
  return text;
}

LoadOptions LoadOptions::of_file(const std::string& path) const {
  LoadOptions options = *this;
  options.file_name = path;
  options.base_directory = std::filesystem::path(path).parent_path().string();
  return options;
}

std::optional<Node> load_file(const std::string& path, LoadOptions options, Diagnostics& diagnostics) {
  options = options.of_file(path);
  const auto text = read_file(path, options.max_bytes, diagnostics);
  return text ? load_text(*text, options, diagnostics) : std::nullopt;
}

}  // namespace prism::config
