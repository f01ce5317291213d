#include "namespaces/secrets.h"

#include <algorithm>
#include <utility>

#include "config/redact.h"
#include "config/schema.h"
#include "namespaces/syntax.h"

namespace prism {
namespace {

using config::Entry;
using config::Node;
using config::TypeInfo;

class Replacer {
 public:
  explicit Replacer(const Components& components) : components_(components) {}

  WithoutSecrets run(const Node& root) {
    TypeInfo file;
    file.form = TypeInfo::Form::object;
    file.object = file_schemas().file;
    out_.root = replace(root, &file, {}, {});
    return std::move(out_);
  }

 private:
  // `type` is what the value was declared as; null: it was not. `key` is the option that it stands under.
  Node replace(const Node& node, const TypeInfo* type, const std::string& path, const std::string& key) {
    if (path == "backends") return backends(node, path);
    if (node.is_scalar()) return scalar(node, type, path, key);
    if (node.is_sequence()) {
      const TypeInfo* element = type != nullptr ? type->element.get() : nullptr;
      std::vector<Node> items;
      for (const Node& item : node.items()) {
        items.push_back(replace(item, element, path + "[" + std::to_string(items.size()) + "]", key));
      }
      return Node::make_list(std::move(items), node);
    }
    if (!node.is_map()) return node;
    std::vector<Entry> entries;
    for (const Entry& entry : node.entries()) {
      const TypeInfo* below = nullptr;
      if (type != nullptr && type->form == TypeInfo::Form::map) {
        below = type->element.get();
      } else if (type != nullptr && type->object) {
        const config::FieldInfo* field = type->object->find(entry.key);
        below = field != nullptr && field->type.form != TypeInfo::Form::any ? &field->type : nullptr;
      }
      entries.push_back(entry);
      entries.back().value = replace(entry.value, below, path.empty() ? entry.key : path + "." + entry.key, entry.key);
    }
    return Node::make_map(std::move(entries), node);
  }

  Node backends(const Node& node, const std::string& path) {
    if (!node.is_map()) return node;
    std::vector<Entry> entries(node.entries().begin(), node.entries().end());
    for (Entry& entry : entries) {
      const Node* type_name = entry.value.find("type");
      const BackendType* type = components_.backend(type_name != nullptr ? type_name->text() : entry.key);
      TypeInfo options;
      options.form = TypeInfo::Form::object;
      if (type != nullptr) options.object = type->options;
      entry.value = replace(entry.value, &options, path + "." + entry.key, entry.key);
    }
    return Node::make_map(std::move(entries), node);
  }

  Node scalar(const Node& node, const TypeInfo* type, const std::string& path, const std::string& key) {
    const std::string written = node.written();
    const bool secret = type != nullptr ? type->secret : config::names_a_secret(key);
    std::vector<config::Stretch> stretches;
    if (secret && !written.empty()) {
      if (!config::is_only_substitutions(written)) stretches.push_back({0, written.size()});
    } else {
      stretches = config::secrets_in(written);
    }
    if (stretches.empty()) return node;
    std::string text, names;
    std::size_t from = 0;
    for (const auto& [begin, end] : stretches) {
      const std::string name = variable(path);
      text += written.substr(from, begin - from) + "${env:" + name + "}";
      names += (names.empty() ? "" : " and ") + name;
      from = end;
    }
    text += written.substr(from);
    out_.comments[path] =
        "a secret is written here in the file: " + names + (stretches.size() == 1 ? " stands for it" : " stand for it");
    return Node::make_substituted(std::move(text), node);
  }

  // Of no other place.
  std::string variable(const std::string& path) {
    std::string out = "PRISM_";
    for (const char c : path) {
      if (c >= 'a' && c <= 'z') {
        out += static_cast<char>(c - 'a' + 'A');
      } else if ((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
        out += c;
      } else if (out.back() != '_') {
        out += '_';
      }
    }
    while (out.ends_with('_')) out.pop_back();
    std::string name = out;
    for (int n = 2; std::ranges::find(out_.variables, name) != out_.variables.end(); ++n) {
      name = out + "_" + std::to_string(n);
    }
    out_.variables.push_back(name);
    return name;
  }

  const Components& components_;
  WithoutSecrets out_;
};

}  // namespace

WithoutSecrets without_secrets(const Node& root, const Components& components) {
  return Replacer(components).run(root);
}

}  // namespace prism
