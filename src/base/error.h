// The one error type of Prism. Backends translate native errors into it in a file of their own; the API layer maps it
// to a google.rpc.Status with ErrorInfo.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace prism {

// Numbers equal google.rpc.Code (https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto).
enum class Code : std::uint8_t {
  cancelled = 1,
  unknown = 2,
  invalid_argument = 3,
  deadline_exceeded = 4,
  not_found = 5,
  already_exists = 6,
  permission_denied = 7,
  resource_exhausted = 8,
  failed_precondition = 9,
  aborted = 10,
  out_of_range = 11,
  unimplemented = 12,
  internal = 13,
  unavailable = 14,
  data_loss = 15,
  unauthenticated = 16,
};

std::string_view to_string(Code) noexcept;  // "INVALID_ARGUMENT"

// What the caller may do with the same operation.
enum class Retry : std::uint8_t {
  never,            // it would fail again, or its input is consumed
  safe,             // nothing happened; repeating it is harmless
  unknown_outcome,  // it may have happened: reconcile (read back, same id), do not guess
};

std::string_view to_string(Retry) noexcept;

struct Error {
  Code code = Code::internal;
  std::string reason;   // stable, UPPER_SNAKE_CASE, listed in docs/reference/errors.md
  std::string message;  // what is wrong and where; never a secret
  std::string hint;     // how to mend it; may be empty
  Retry retry = Retry::never;
  std::chrono::milliseconds retry_after{0};     // 0: none given
  std::map<std::string, std::string> metadata;  // e.g. namespace, pattern, backend, field

  Error with(std::string key, std::string value) && {
    metadata.insert_or_assign(std::move(key), std::move(value));
    return std::move(*this);
  }
  std::string describe() const;  // "REASON: message (hint)" for logs and the command line
};

template <class T = void>
using Result = std::expected<T, Error>;

// `return fail(Code::not_found, "TOPIC_NOT_FOUND", "...")` in any function that returns Result<T>.
inline std::unexpected<Error> fail(Code code, std::string reason, std::string message, std::string hint = {},
                                   Retry retry = Retry::never) {
  return std::unexpected(Error{code, std::move(reason), std::move(message), std::move(hint), retry, {}, {}});
}
inline std::unexpected<Error> fail(Error error) { return std::unexpected(std::move(error)); }

}  // namespace prism

#define PRISM_CONCAT_INNER(a, b) a##b
#define PRISM_CONCAT(a, b) PRISM_CONCAT_INNER(a, b)
// PRISM_TRY(auto x, expression): x = the value, or return the error. PRISM_CO_TRY: the same inside a coroutine.
#define PRISM_TRY_IMPL(tmp, ret, declaration, ...)           \
  auto tmp = (__VA_ARGS__);                                  \
  if (!tmp) ret ::std::unexpected(::std::move(tmp).error()); \
  declaration = *::std::move(tmp)
#define PRISM_TRY(declaration, ...) PRISM_TRY_IMPL(PRISM_CONCAT(prism_try_, __LINE__), return, declaration, __VA_ARGS__)
#define PRISM_CO_TRY(declaration, ...) \
  PRISM_TRY_IMPL(PRISM_CONCAT(prism_try_, __LINE__), co_return, declaration, __VA_ARGS__)
// The same for Result<void>.
#define PRISM_CHECK_IMPL(tmp, ret, ...) \
  if (auto tmp = (__VA_ARGS__); !tmp) ret ::std::unexpected(::std::move(tmp).error())
#define PRISM_CHECK(...) PRISM_CHECK_IMPL(PRISM_CONCAT(prism_check_, __LINE__), return, __VA_ARGS__)
#define PRISM_CO_CHECK(...) PRISM_CHECK_IMPL(PRISM_CONCAT(prism_check_, __LINE__), co_return, __VA_ARGS__)
