// errno -> Error.
#pragma once

#include <string_view>

#include "base/error.h"

namespace prism::filesystem {

// `doing` completes "cannot ...", `what` is the object's key or a path. Reasons: OBJECT_NOT_FOUND, DISK_FULL,
// STORAGE_IO_ERROR, STORAGE_PERMISSION_DENIED, STORAGE_READ_ONLY, STORAGE_OVERLOADED (descriptors, memory),
// STORAGE_UNAVAILABLE, INVALID_OBJECT_KEY, STORAGE_ERROR.
Error error_of(int number, std::string_view doing, std::string_view what);

Error object_not_found(std::string_view key);
Error object_damaged(std::string_view key, std::string_view how);

}  // namespace prism::filesystem
