#include "config/yaml_text.h"

#include <algorithm>
#include <cctype>
#include <regex>

#include "config/json_text.h"

namespace prism::config {
namespace {

bool letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// May stand without quotes, and reads back as the same text.
bool plain(const std::string& text) {
  if (text.empty() || text.size() > 200 || text.back() == ' ') return false;
  if (!letter_or_digit(text[0]) && text[0] != '.' && text[0] != '/' &&
      !(text[0] == '-' && text.size() > 1 && letter_or_digit(text[1])))
    return false;
  return std::ranges::all_of(
      text, [](char c) { return letter_or_digit(c) || c == '.' || c == '/' || c == '-' || c == '+' || c == ' '; });
}

// Words and numbers that YAML would read as something else than text.
bool reads_as_text(const std::string& text) {
  static const std::regex other(R"((null|true|false|yes|no|on|off|y|n|~|[-+.]?[0-9].*|\.(inf|nan)))",
                                std::regex::icase);
  return !std::regex_match(text, other);
}

std::string scalar(const Node& node) {
  const std::string text = node.written();
  if (plain(text) && (!node.quoted() || reads_as_text(text))) return text;
  return json_quote(text);
}

std::string key(const std::string& name) { return plain(name) && reads_as_text(name) ? name : json_quote(name); }

class Writer {
 public:
  explicit Writer(const std::map<std::string, std::string>& comments) : comments_(comments) {}

  // The value behind "key:" or "-"; `depth` is that of what stands below.
  void value(const Node& node, std::size_t depth, const std::string& path, bool in_list) {
    switch (node.kind()) {
      case Node::Kind::null:
        out_ += in_list ? " null\n" : "\n";
        return;
      case Node::Kind::scalar:
        out_ += " " + scalar(node) + "\n";
        return;
      case Node::Kind::sequence:
        if (node.items().empty()) {
          out_ += " []\n";
          return;
        }
        out_ += "\n";
        for (std::size_t i = 0; i < node.items().size(); ++i) {
          const std::string at = path + "[" + std::to_string(i) + "]";
          comment(at, depth);
          out_ += std::string(depth * 2, ' ') + "-";
          value(node.items()[i], depth + 1, at, true);
        }
        return;
      case Node::Kind::map:
        if (node.entries().empty()) {
          out_ += " {}\n";
          return;
        }
        if (!in_list) out_ += "\n";
        entries(node, depth, path, in_list);
        return;
    }
  }

  // The first entry of a map in a list stands behind its '-'.
  void entries(const Node& node, std::size_t depth, const std::string& path, bool in_list) {
    bool first = in_list;
    for (const Entry& entry : node.entries()) {
      const std::string at = path.empty() ? entry.key : path + "." + entry.key;
      if (first) {
        out_ += " ";
      } else {
        comment(at, depth);
        out_ += std::string(depth * 2, ' ');
      }
      first = false;
      out_ += key(entry.key) + ":";
      value(entry.value, depth + 1, at, false);
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void comment(const std::string& path, std::size_t depth) {
    const auto found = comments_.find(path);
    if (found == comments_.end()) return;
    for (std::size_t from = 0; from < found->second.size();) {
      const std::size_t end = std::min(found->second.find('\n', from), found->second.size());
      out_ += std::string(depth * 2, ' ') + "# " + found->second.substr(from, end - from) + "\n";
      from = end + 1;
    }
  }

  const std::map<std::string, std::string>& comments_;
  std::string out_;
};

}  // namespace

std::string format_yaml(const Node& root, const std::map<std::string, std::string>& comments) {
  Writer writer(comments);
  if (root.is_map()) {
    writer.entries(root, 0, {}, false);
  } else {
    writer.value(root, 0, {}, false);
  }
  return writer.take();
}

std::string format_json(const Node& root) {
  static const std::regex number("-?(0|[1-9][0-9]*)(\\.[0-9]+)?");
  std::string out;
  switch (root.kind()) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::scalar: {
      const std::string text = root.written();
      const bool as_is = !root.quoted() && (text == "true" || text == "false" || std::regex_match(text, number));
      return as_is ? text : json_quote(text);
    }
    case Node::Kind::sequence:
      for (const Node& item : root.items()) out += (out.empty() ? "" : ",") + format_json(item);
      return "[" + out + "]";
    case Node::Kind::map:
      for (const Entry& entry : root.entries()) {
        out += (out.empty() ? "" : ",") + json_quote(entry.key) + ":" + format_json(entry.value);
      }
      return "{" + out + "}";
  }
  return "null";
}

}  // namespace prism::config
