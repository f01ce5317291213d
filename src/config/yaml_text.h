// A tree as YAML that reads back as the same tree. Secrets stay the references that the file has for them.
#pragma once

#include <map>
#include <string>

#include "config/document.h"

namespace prism::config {

// Block style, two spaces a level, ends with a line break. A comment (by the path of an entry below `root`:
// "namespaces[0].patterns[1]", "server") stands above it, one '#' a line; it may have several lines.
std::string format_yaml(const Node& root, const std::map<std::string, std::string>& comments = {});

// {"a": [1, "b"]} on one line; scalars that were written without quotes and are numbers or booleans stay so.
std::string format_json(const Node& root);

}  // namespace prism::config
