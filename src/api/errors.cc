#include "api/errors.h"

#include <google/protobuf/any.pb.h>

#include <string>
#include <string_view>

#include "prism/common/v1/rpc_status.pb.h"

namespace prism::api {
namespace {

// Packs under the name of the original, so that any gRPC client's library knows it.
void add_detail(common::v1::Status& status, std::string_view name, const google::protobuf::Message& detail) {
  auto* any = status.add_details();
  any->set_type_url("type.googleapis.com/google.rpc." + std::string(name));
  detail.SerializeToString(any->mutable_value());
}

std::string value_or(const Error& error, const std::string& key, std::string fallback) {
  const auto found = error.metadata.find(key);
  if (found != error.metadata.end()) return found->second;
  return fallback;
}

}  // namespace

grpc::Status to_status(const Error& error) {
  common::v1::Status status;
  status.set_code(static_cast<int>(error.code));
  std::string text = error.message;
  if (!error.hint.empty()) text += " (" + error.hint + ")";
  status.set_message(text);

  common::v1::ErrorInfo info;
  info.set_reason(error.reason);
  info.set_domain("prism");
  auto& metadata = *info.mutable_metadata();
  for (const auto& [key, value] : error.metadata) metadata[key] = value;
  metadata["retry"] = to_string(error.retry);
  if (!error.hint.empty()) metadata["hint"] = error.hint;
  add_detail(status, "ErrorInfo", info);

  if (error.retry_after.count() > 0) {
    common::v1::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(error.retry_after.count() / 1000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int>(error.retry_after.count() % 1000 * 1'000'000));
    add_detail(status, "RetryInfo", retry);
  }
  switch (error.code) {
    case Code::invalid_argument:
      if (const auto field = error.metadata.find("field"); field != error.metadata.end()) {
        common::v1::BadRequest bad;
        auto* violation = bad.add_field_violations();
        violation->set_field(field->second);
        violation->set_description(error.message);
        add_detail(status, "BadRequest", bad);
      }
      break;
    case Code::resource_exhausted: {
      common::v1::QuotaFailure quota;
      auto* violation = quota.add_violations();
      violation->set_subject(value_or(error, "namespace", "server"));
      violation->set_description(error.message);
      add_detail(status, "QuotaFailure", quota);
      break;
    }
    case Code::failed_precondition:
    case Code::aborted: {
      common::v1::PreconditionFailure failed;
      auto* violation = failed.add_violations();
      violation->set_type(error.reason);
      violation->set_subject(value_or(error, "namespace", value_or(error, "topic", "")));
      violation->set_description(error.message);
      add_detail(status, "PreconditionFailure", failed);
      break;
    }
    default:
      break;
  }
  return {static_cast<grpc::StatusCode>(error.code), text, status.SerializeAsString()};
}

std::string reason_of(const grpc::Status& status) {
  common::v1::Status details;
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) return {};
  for (const auto& any : details.details()) {
    common::v1::ErrorInfo info;
    if (any.type_url().ends_with("/google.rpc.ErrorInfo") && info.ParseFromString(any.value())) return info.reason();
  }
  return {};
}

void to_proto(const Error& error, common::v1::Error* out) {
  out->set_code(static_cast<int>(error.code));
  out->set_reason(error.reason);
  out->set_message(error.message);
  out->set_hint(error.hint);
  out->set_retry(std::string(to_string(error.retry)));
  for (const auto& [key, value] : error.metadata) (*out->mutable_metadata())[key] = value;
}

Error method_not_available(std::string_view method) {
  return {Code::unimplemented,
          "METHOD_NOT_AVAILABLE",
          std::string(method) + " is part of the contract, but not available in this version",
          "see the list of methods in docs/reference for what this version serves",
          Retry::never,
          {},
          {{"method", std::string(method)}}};
}

Error field_not_available(std::string_view field) {
  return {Code::unimplemented,
          "FIELD_NOT_AVAILABLE",
          "`" + std::string(field) + "` is not available in this version; nothing was done",
          "leave it unset",
          Retry::never,
          {},
          {{"field", std::string(field)}}};
}

Error request_malformed(std::string_view message) {
  return {Code::invalid_argument,
          "REQUEST_MALFORMED",
          "what came is no valid " + std::string(message),
          "make the client from the server's proto files; texts must be UTF-8",
          Retry::never,
          {},
          {}};
}

Error shutting_down() {
  return {Code::unavailable,
          "SHUTTING_DOWN",
          "the server is shutting down",
          "connect again, perhaps to another server",
          Retry::safe,
          {},
          {}};
}

Error namespace_replaced() {
  return {Code::unavailable,
          "NAMESPACE_REPLACED",
          "the configuration of the namespace was changed",
          "subscribe again: what was not acknowledged comes again",
          Retry::safe,
          {},
          {}};
}

}  // namespace prism::api
