// Error -> gRPC status with google.rpc details, and the in-band error of batches and streams.
#pragma once

#include <grpcpp/support/status.h>

#include "base/error.h"
#include "prism/common/v1/error.pb.h"

namespace prism::api {

// The status carries a google.rpc.Status in `grpc-status-details-bin`: ErrorInfo always (domain "prism", metadata with
// `retry` and `hint`), RetryInfo where the error says when to try again, BadRequest / QuotaFailure /
// PreconditionFailure by code.
grpc::Status to_status(const Error& error);

// The reason in a status that to_status() made; empty where it has none.
std::string reason_of(const grpc::Status& status);

void to_proto(const Error& error, common::v1::Error* out);

// What a method, or a field, answers that the contract has and this version does not.
Error method_not_available(std::string_view method);
Error field_not_available(std::string_view field);
// The bytes of a request, or of a frame, are no such message.
Error request_malformed(std::string_view message);
// What a stream ends with, and a call is refused with, while the server goes down.
Error shutting_down();
// Of a subscription: another assembly of the namespace has taken over, and serves it when it is opened again.
Error namespace_replaced();

}  // namespace prism::api
