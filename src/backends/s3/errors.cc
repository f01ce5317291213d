#include "backends/s3/errors.h"

#include <algorithm>
#include <span>

#include "backends/s3/xml.h"
#include "base/text.h"

namespace prism::s3 {
namespace {

constexpr std::size_t kShownMessage = 300;

enum class Kind : std::uint8_t {
  no_object,
  no_bucket,
  bucket_exists,
  bucket_of_another,
  no_upload,
  authentication,
  permission,
  clock,
  region,
  precondition,
  conflict,
  busy,
  failed_inside,
  too_large,
  damaged,
  range,
  key,
  bucket_name,
  metadata,
  full,
  no_lifecycle,
  unsupported,
};

struct Row {
  std::string_view code;
  Kind kind;
};

// Of AWS, and of servers that speak its protocol (XMinio...: MinIO).
constexpr Row kTable[] = {
    {"NoSuchKey", Kind::no_object},
    {"NoSuchVersion", Kind::no_object},
    {"NoSuchBucket", Kind::no_bucket},
    {"BucketAlreadyOwnedByYou", Kind::bucket_exists},
    {"BucketAlreadyExists", Kind::bucket_of_another},
    {"NoSuchUpload", Kind::no_upload},
    {"InvalidAccessKeyId", Kind::authentication},
    {"SignatureDoesNotMatch", Kind::authentication},
    {"InvalidToken", Kind::authentication},
    {"ExpiredToken", Kind::authentication},
    {"TokenRefreshRequired", Kind::authentication},
    {"InvalidSecurity", Kind::authentication},
    {"NotSignedUp", Kind::authentication},
    {"MissingSecurityHeader", Kind::authentication},
    {"AccessDenied", Kind::permission},
    {"AllAccessDisabled", Kind::permission},
    {"AccountProblem", Kind::permission},
    {"MethodNotAllowed", Kind::permission},
    {"RequestTimeTooSkewed", Kind::clock},
    {"RequestExpired", Kind::clock},
    {"PermanentRedirect", Kind::region},
    {"TemporaryRedirect", Kind::region},
    {"AuthorizationHeaderMalformed", Kind::region},
    {"IllegalLocationConstraintException", Kind::region},
    {"PreconditionFailed", Kind::precondition},
    {"ConditionalRequestConflict", Kind::conflict},
    {"OperationAborted", Kind::conflict},
    {"SlowDown", Kind::busy},
    {"SlowDownRead", Kind::busy},
    {"SlowDownWrite", Kind::busy},
    {"RequestLimitExceeded", Kind::busy},
    {"Throttling", Kind::busy},
    {"ThrottlingException", Kind::busy},
    {"TooManyRequests", Kind::busy},
    {"BandwidthLimitExceeded", Kind::busy},
    {"RequestTimeout", Kind::busy},
    {"Busy", Kind::busy},
    {"InternalError", Kind::failed_inside},
    {"InternalFailure", Kind::failed_inside},
    {"ServiceUnavailable", Kind::failed_inside},
    {"ServerNotInitialized", Kind::failed_inside},
    {"XMinioServerNotInitialized", Kind::failed_inside},
    {"EntityTooLarge", Kind::too_large},
    {"MaxMessageLengthExceeded", Kind::too_large},
    {"BadDigest", Kind::damaged},
    {"InvalidDigest", Kind::damaged},
    {"XAmzContentSHA256Mismatch", Kind::damaged},
    {"XAmzContentChecksumMismatch", Kind::damaged},
    {"IncompleteBody", Kind::damaged},
    {"InvalidRange", Kind::range},
    {"KeyTooLongError", Kind::key},
    {"KeyTooLong", Kind::key},
    {"InvalidURI", Kind::key},
    {"InvalidObjectName", Kind::key},
    {"XMinioInvalidObjectName", Kind::key},
    {"XMinioParentIsObject", Kind::key},
    {"XMinioObjectExistsAsDirectory", Kind::key},
    {"ObjectParentIsFile", Kind::key},
    {"ExistingObjectIsDirectory", Kind::key},
    {"DirectoryObjectContainsData", Kind::key},
    {"InvalidBucketName", Kind::bucket_name},
    {"MetadataTooLarge", Kind::metadata},
    {"QuotaExceeded", Kind::full},
    {"InsufficientCapacity", Kind::full},
    {"XMinioStorageFull", Kind::full},
    {"XMinioAdminBucketQuotaExceeded", Kind::full},
    {"StorageFull", Kind::full},
    {"NoSuchLifecycleConfiguration", Kind::no_lifecycle},
    {"NotImplemented", Kind::unsupported},
};

// Where there is no body, or none that says more.
std::string_view code_of(int status) {
  switch (status) {
    case 301:
    case 307:
      return "PermanentRedirect";
    case 401:
      return "InvalidAccessKeyId";
    case 403:
      return "AccessDenied";
    case 404:
      return "NoSuchKey";
    case 408:
      return "RequestTimeout";
    case 409:
      return "ConditionalRequestConflict";
    case 412:
      return "PreconditionFailed";
    case 413:
      return "EntityTooLarge";
    case 416:
      return "InvalidRange";
    case 429:
      return "SlowDown";
    case 500:
    case 502:
    case 503:
    case 504:
      return "InternalError";
    case 501:
      return "NotImplemented";
    case 507:
      return "InsufficientCapacity";
    default:
      return {};
  }
}

}  // namespace

Refusal refusal_of(const HttpHead& head, std::string_view body) {
  Refusal out;
  out.status = head.status;
  read_error(body, out.code, out.message, out.region);
  if (out.code.empty()) out.code = code_of(head.status);
  if (out.code.empty()) out.code = "HTTP " + std::to_string(head.status);
  if (out.region.empty()) {
    if (const std::string* region = head.find("x-amz-bucket-region")) out.region = *region;
  }
  out.message = made_visible(out.message.substr(0, kShownMessage));
  return out;
}

Error error_of(const Refusal& refusal, const Asked& asked) {
  const std::string why = refusal.code + (refusal.message.empty() ? "" : ": " + refusal.message);
  const std::string what =
      asked.key.empty() ? "the bucket '" + std::string(asked.bucket) + "'"
                        : "the object '" + shown(asked.key) + "' in the bucket '" + std::string(asked.bucket) + "'";
  const auto make = [&](Code code, std::string reason, std::string message, std::string hint = {},
                        Retry retry = Retry::never) {
    return Error{code, std::move(reason), std::move(message), std::move(hint), retry, {}, {}}.with("backend",
                                                                                                   asked.peer.backend);
  };
  const auto* const row = std::ranges::find(kTable, refusal.code, &Row::code);
  if (row == std::end(kTable)) {
    if (refusal.status >= 500 || refusal.status == 429)
      return client::unavailable(asked.peer, why, refusal.status == 429 ? Retry::safe : Retry::unknown_outcome);
    return make(Code::internal, "STORAGE_ERROR", asked.peer.text() + " refuses " + what + ": " + why);
  }
  switch (row->kind == Kind::no_object && asked.key.empty() ? Kind::no_bucket : row->kind) {
    case Kind::no_object:
      return make(Code::not_found, "OBJECT_NOT_FOUND", "there is no object '" + shown(asked.key) + "'");
    case Kind::no_bucket:
      return make(Code::failed_precondition, "BUCKET_MISSING",
                  asked.peer.text() + " has no bucket '" + std::string(asked.bucket) + "'",
                  "make it, or let Prism do so with `create_bucket: true`");
    case Kind::bucket_exists:
      return make(Code::already_exists, "BUCKET_EXISTS", "there is " + what + " already");
    case Kind::bucket_of_another:
      return client::permission_denied(asked.peer, what + " belongs to somebody else: " + why, "use another name");
    case Kind::no_upload:
      return make(Code::aborted, "UPLOAD_ABORTED",
                  "the upload of '" + shown(asked.key) + "' was removed before it was finished");
    case Kind::authentication:
      return client::authentication_failed(asked.peer, why);
    case Kind::permission:
      return client::permission_denied(asked.peer, what + ": " + why);
    case Kind::clock:
      return make(Code::failed_precondition, "BACKEND_CLOCK_SKEW",
                  asked.peer.text() + " has another time than this machine: " + why,
                  "set this machine's clock, or the server's; more than 15 minutes are refused");
    case Kind::region:
      return make(
          Code::failed_precondition, "BACKEND_WRONG_REGION",
          what + " is in another region" + (refusal.region.empty() ? "" : ", " + refusal.region) + ": " + why,
          refusal.region.empty() ? "set `region` to that of the bucket" : "set `region: " + refusal.region + "`");
    case Kind::precondition:
      return make(Code::failed_precondition, "PRECONDITION_FAILED",
                  "the object '" + shown(asked.key) + "' is not the one that the condition asks for");
    case Kind::conflict:
      return make(Code::aborted, "STORAGE_CONFLICT", "another change of " + what + " is under way: " + why, "repeat it",
                  Retry::safe);
    case Kind::busy: {
      Error error = make(Code::resource_exhausted, "STORAGE_OVERLOADED",
                         asked.peer.text() + " has too much to do: " + why, "send less at once", Retry::safe);
      error.retry_after = std::chrono::milliseconds(500);
      return error;
    }
    case Kind::failed_inside:
      return client::unavailable(asked.peer, why, Retry::unknown_outcome);
    case Kind::too_large:
      return make(Code::invalid_argument, "PAYLOAD_TOO_LARGE", "the server takes no object of this size: " + why);
    case Kind::damaged:
      return make(Code::data_loss, "TRANSFER_DAMAGED",
                  "the payload of '" + shown(asked.key) + "' did not arrive as it was sent: " + why, {}, Retry::safe);
    case Kind::range:
      return make(Code::out_of_range, "RANGE_NOT_SATISFIABLE",
                  "the object '" + shown(asked.key) + "' has no such range");
    case Kind::key:
      return make(Code::invalid_argument, "INVALID_OBJECT_KEY",
                  "the server cannot keep an object '" + shown(asked.key) + "': " + why);
    case Kind::bucket_name:
      return make(Code::invalid_argument, "INVALID_BUCKET",
                  "'" + shown(asked.bucket) + "' is not a bucket's name: " + why);
    case Kind::metadata:
      return make(Code::invalid_argument, "INVALID_METADATA", "the server does not keep so much metadata: " + why);
    case Kind::full:
      return make(Code::resource_exhausted, "DISK_FULL", asked.peer.text() + " has no room: " + why);
    case Kind::no_lifecycle:
      return make(Code::not_found, "LIFECYCLE_NOT_FOUND", what + " has no life cycle");
    case Kind::unsupported:
      return make(Code::unimplemented, "STORAGE_UNSUPPORTED", asked.peer.text() + " cannot do this: " + why);
  }
  return make(Code::internal, "STORAGE_ERROR", why);
}

}  // namespace prism::s3
