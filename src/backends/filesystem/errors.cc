#include "backends/filesystem/errors.h"

#include <cerrno>
#include <string>
#include <system_error>

namespace prism::filesystem {
namespace {

struct Kind {
  Code code;
  const char* reason;
  const char* hint;
  Retry retry;
};

Kind kind_of(int number) {
  switch (number) {
    case ENOENT:
      return {Code::not_found, "OBJECT_NOT_FOUND", "", Retry::never};
    case ENOSPC:
    case EDQUOT:
    case EFBIG:  // the file system's, or the process's, limit of a file's size
      return {Code::resource_exhausted, "DISK_FULL",
              "free space on the file system or raise the quota or file size limit", Retry::never};
    case EIO:
    case EUCLEAN:  // "structure needs cleaning": metadata is corrupt
    case EBADMSG:  // a checksum of the file system failed
    case EREMOTEIO:
      return {Code::data_loss, "STORAGE_IO_ERROR", "the device or file system reports errors: see the kernel's log",
              Retry::never};
    case EACCES:
    case EPERM:
      return {Code::permission_denied, "STORAGE_PERMISSION_DENIED",
              "the process must own, or may write, the storage folder", Retry::never};
    case EROFS:
      return {Code::failed_precondition, "STORAGE_READ_ONLY", "the file system is mounted read-only", Retry::never};
    case EMFILE:
    case ENFILE:
      return {Code::resource_exhausted, "STORAGE_OVERLOADED", "raise the limit of open files (ulimit -n)", Retry::safe};
    case ENOMEM:
      return {Code::resource_exhausted, "STORAGE_OVERLOADED", "the machine is short of memory", Retry::safe};
    case ENAMETOOLONG:
      return {Code::invalid_argument, "INVALID_OBJECT_KEY", "shorten the key or the path of the storage folder",
              Retry::never};
    case ESTALE:
    case ENXIO:
    case ENODEV:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTDOWN:
      return {Code::unavailable, "STORAGE_UNAVAILABLE", "the file system is gone: is it still mounted?", Retry::safe};
    default:
      return {Code::internal, "STORAGE_ERROR", "", Retry::never};
  }
}

}  // namespace

Error error_of(int number, std::string_view doing, std::string_view what) {
  const Kind kind = kind_of(number);
  Error error;
  error.code = kind.code;
  error.reason = kind.reason;
  error.message =
      "cannot " + std::string(doing) + " '" + std::string(what) + "': " + std::generic_category().message(number);
  error.hint = kind.hint;
  error.retry = kind.retry;
  return error;
}

Error object_not_found(std::string_view key) {
  Error error;
  error.code = Code::not_found;
  error.reason = "OBJECT_NOT_FOUND";
  error.message = "there is no object '" + std::string(key) + "'";
  return error;
}

Error object_damaged(std::string_view key, std::string_view how) {
  Error error;
  error.code = Code::data_loss;
  error.reason = "OBJECT_DAMAGED";
  error.message = "the object '" + std::string(key) + "' is damaged: " + std::string(how);
  return error;
}

}  // namespace prism::filesystem
