// Connection options of the servers that this folder's file stands in for when Prism runs embedded: what an entry under
// `backends:` may say of them, so that a file for a real server is checked before there is one.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "config/diagnostics.h"
#include "config/document.h"
#include "config/schema.h"

namespace prism::sqlite {

struct ServerOptions {
  std::function<void(const config::Node& options, config::Diagnostics&)> validate;
  std::shared_ptr<const config::SchemaInfo> info;
};

// "nats" or "redis"; none of others.
ServerOptions server_options(std::string_view type);

}  // namespace prism::sqlite
