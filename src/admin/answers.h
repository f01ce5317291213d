// How the admin address answers: JSON, with errors in one form.
#pragma once

#include <httplib.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace prism::admin {

nlohmann::json error_json(const Error& error);
std::string to_text(const nlohmann::json& body);  // ends with a line break; bytes that are not UTF-8 are replaced
int http_status(const Error& error);

void answer(httplib::Response& response, const nlohmann::json& body, int status = 200);
void answer(httplib::Response& response, const Error& error);  // {"error": {...}}
void answer(httplib::Response& response, const Error& error, int status);

}  // namespace prism::admin
