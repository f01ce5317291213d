#include "admin/client.h"

#include <httplib.h>

namespace prism::admin {
namespace {

httplib::Client client_of(const std::string& address, std::chrono::seconds patience) {
  httplib::Client client("http://" + address);
  client.set_connection_timeout(std::chrono::seconds(5));
  client.set_read_timeout(patience);
  return client;
}

Result<Response> answer(const std::string& address, const httplib::Result& result) {
  if (!result) {
    return fail(Code::unavailable, "NOT_REACHABLE",
                "no admin server answers at " + address + ": " + httplib::to_string(result.error()),
                "is the server running, and is this its admin address (--admin-port, 8981 by default)?", Retry::safe);
  }
  return Response{result->status, result->body};
}

}  // namespace

Result<Response> get(const std::string& address, const std::string& path, std::chrono::seconds patience) {
  return answer(address, client_of(address, patience).Get(path));
}

Result<Response> post(const std::string& address, const std::string& path, const std::string& body,
                      const std::string& content_type, const config::Secret& token, std::chrono::seconds patience) {
  httplib::Headers headers;
  if (!token.empty()) headers.emplace("Authorization", "Bearer " + token.reveal());
  return answer(address, client_of(address, patience).Post(path, headers, body, content_type));
}

}  // namespace prism::admin
