// The secret that changes by the admin address ask for: a file below the data folder that only its owner can read, so
// that whoever may read it may as well write the configuration itself.
#pragma once

#include <string>

#include "base/error.h"
#include "config/secret.h"

namespace prism::admin {

struct Token {
  std::string path;  // absolute
  config::Secret value;
};

// Reads <data_dir>/admin.token, or makes it (mode 0600, 32 random bytes as hex). FILE_UNWRITABLE.
Result<Token> open_token(const std::string& data_dir);

// The value in a token's file, or an error: FILE_UNREADABLE.
Result<config::Secret> read_token(const std::string& path);

}  // namespace prism::admin
