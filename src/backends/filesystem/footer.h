// What is known of an object besides its bytes. It stands behind the content in the same file, so that one rename
// publishes both, the content begins at offset 0, and a file that was cut is recognised.
#pragma once

#include <cstdint>
#include <string>

#include "capabilities/object_store.h"

namespace prism::filesystem {

// All but the key, which is the file's name. INVALID_METADATA: together more than 64 KiB.
Result<std::string> encode_footer(const ObjectInfo& info);
// Reads it back from an open file. OBJECT_DAMAGED; or what error_of() gives.
Result<ObjectInfo> read_footer(int fd, const std::string& key);

}  // namespace prism::filesystem
