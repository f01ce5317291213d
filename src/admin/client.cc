#include "admin/client.h"

#include <httplib.h>

namespace prism::admin {
namespace {

constexpr std::chrono::seconds kConnectPatience{5};

httplib::Client client_of(const std::string& address, std::chrono::seconds patience) {
  httplib::Client client("http://" + address);
  client.set_connection_timeout(kConnectPatience);
  client.set_read_timeout(patience);
  return client;
}

std::string reason_of(httplib::Error error, std::chrono::seconds patience) {
  switch (error) {
    case httplib::Error::Connection:
      return "the connection was refused, or there is no such host";
    case httplib::Error::ConnectionTimeout:
      return "no connection in " + std::to_string(kConnectPatience.count()) + " s";
    case httplib::Error::Read:
      return "it was connected, and closed the connection or gave no answer in " + std::to_string(patience.count()) +
             " s";
    case httplib::Error::Write:
      return "it was connected, and did not take the request";
    default:
      return "the exchange failed (" + httplib::to_string(error) + ")";
  }
}

Result<Response> answer(const std::string& address, std::chrono::seconds patience, const httplib::Result& result) {
  if (!result) {
    return fail(Code::unavailable, "NOT_REACHABLE",
                "no admin server answers at " + address + ": " + reason_of(result.error(), patience),
                "is the server running, and is this its admin address (--admin-port, 8981 by default)?", Retry::safe);
  }
  return Response{result->status, result->body};
}

}  // namespace

Result<Response> get(const std::string& address, const std::string& path, std::chrono::seconds patience) {
  return answer(address, patience, client_of(address, patience).Get(path));
}

Result<Response> post(const std::string& address, const std::string& path, const std::string& body,
                      const std::string& content_type, const config::Secret& token, std::chrono::seconds patience) {
  httplib::Headers headers;
  if (!token.empty()) headers.emplace("Authorization", "Bearer " + token.reveal());
  return answer(address, patience, client_of(address, patience).Post(path, headers, body, content_type));
}

}  // namespace prism::admin
