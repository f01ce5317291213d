// Base64 (RFC 4648): the standard alphabet with padding, and the URL-safe one without.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace prism {

std::string base64_encode(std::string_view data);
std::optional<std::string> base64_decode(std::string_view text);  // none: not base64
std::string base64url_encode(std::string_view data);
std::optional<std::string> base64url_decode(std::string_view text);

}  // namespace prism
