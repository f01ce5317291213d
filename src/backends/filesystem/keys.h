// How object keys become paths. Any legal key works: names cannot leave the folder, a key may be the prefix of another
// ("a" and "a/b"), and segments may be longer than a file name.
//
//   key            path
//   a              a.o
//   a/b            a/b.o
//   x.o/y          x%2Eo/y.o          only an object's file ends with .o
//   50%/ä          50%25/%C3%A4.o     '%', control characters and all but ASCII are percent-encoded
//   <130 bytes>    <64>%~/<64>%~/<2>.o
//   <64 bytes>     <64>%~/%_.o        a rest of no bytes is "%_"
//
// Every segment of 64 bytes or more is cut, so that the entries of a folder, in the order of their decoded names ('/'
// behind folders), are in the order of the keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace prism::filesystem {

Result<void> check_key(std::string_view key);        // INVALID_OBJECT_KEY
Result<void> check_bucket(std::string_view bucket);  // INVALID_BUCKET

struct ObjectPath {
  std::string folder;  // "a/b", relative; empty: the top
  std::string stem;    // of the file: without ".o"
  std::string file() const { return stem + ".o"; }
};
ObjectPath object_path(std::string_view key);

// An entry of a folder, decoded.
struct Name {
  enum class Kind : unsigned char {
    object,  // text is the last segment, or its rest
    folder,  // text is a whole segment, or its rest, and '/'
    part,    // text is a part of a segment that goes on below
  };
  Kind kind;
  std::string text;
};
// None: a file that no key leads to.
std::optional<Name> decode_name(std::string_view name);

}  // namespace prism::filesystem
