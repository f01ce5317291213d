// How keys of a key-value store become keys of objects: any bytes, in the same order, and such that servers that keep
// objects as files can keep them too.
//
//   key          name
//   user42       user42
//   a/b          a!2fb        what is no letter or digit: a sign that stands where the byte stands in the order, and
//   hex (250 bytes)  <200>/<50>   in segments of 200 (200 bytes)  <200>/!      a rest of no bytes
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace prism::client {

std::string key_name(std::string_view key);
// What the names of all keys begin with that begin with `prefix`.
std::string key_name_prefix(std::string_view prefix);
std::optional<std::string> key_of_name(std::string_view name);  // none: no key leads to it

}  // namespace prism::client
