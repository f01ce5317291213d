// A configuration that can be shown: what is secret in it stands by reference.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/document.h"
#include "patterns/components.h"

namespace prism {

struct WithoutSecrets {
  config::Node root;
  std::map<std::string, std::string> comments;  // of the places, by path ("backends.main.password")
  std::vector<std::string> variables;           // "PRISM_BACKENDS_MAIN_PASSWORD", in the order of the file
};

// `root` (a whole file) with ${env:NAME} for each secret that is written in it: the values of options that are secrets
// by their declaration, or by their name where there is none, and what config::secrets_in() finds in others. It means
// the same where the variables hold the secrets.
WithoutSecrets without_secrets(const config::Node& root, const Components& components);

}  // namespace prism
