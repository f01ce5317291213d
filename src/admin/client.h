// A request to a server's admin address, for commands.
#pragma once

#include <chrono>
#include <string>

#include "base/error.h"
#include "config/secret.h"

namespace prism::admin {

struct Response {
  int status = 0;
  std::string body;
};

// `address`: host:port. An answer of any status is a result. NOT_REACHABLE: there was none.
Result<Response> get(const std::string& address, const std::string& path, std::chrono::seconds patience);
Result<Response> post(const std::string& address, const std::string& path, const std::string& body,
                      const std::string& content_type, const config::Secret& token, std::chrono::seconds patience);

}  // namespace prism::admin
