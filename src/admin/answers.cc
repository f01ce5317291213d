#include "admin/answers.h"

namespace prism::admin {

using nlohmann::json;

json error_json(const Error& error) {
  return {{"code", to_string(error.code)},   {"reason", error.reason},
          {"message", error.message},        {"hint", error.hint},
          {"retry", to_string(error.retry)}, {"metadata", error.metadata}};
}

std::string to_text(const json& body) { return body.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

int http_status(const Error& error) {
  switch (error.code) {
    case Code::invalid_argument:
    case Code::failed_precondition:
    case Code::out_of_range:
      return 400;
    case Code::unauthenticated:
      return 401;
    case Code::not_found:
      return 404;
    case Code::already_exists:
    case Code::aborted:
      return 409;
    case Code::resource_exhausted:
      return 429;
    case Code::unimplemented:
      return 501;
    case Code::unavailable:
      return 503;
    case Code::deadline_exceeded:
      return 504;
    default:
      return 500;
  }
}

void answer(httplib::Response& response, const json& body, int status) {
  response.status = status;
  response.set_content(to_text(body), "application/json");
}

void answer(httplib::Response& response, const Error& error) { answer(response, error, http_status(error)); }

void answer(httplib::Response& response, const Error& error, int status) {
  answer(response, json{{"error", error_json(error)}}, status);
}

}  // namespace prism::admin
