#include "cli/client.h"

#include "cli/output.h"
#include "prism/common/v1/rpc_status.pb.h"

namespace prism::cli {
namespace {

constexpr int kMaxFrameBytes = 8 << 20;  // the server's frames are smaller

Retry to_retry(std::string_view text) {
  if (text == "safe") return Retry::safe;
  if (text == "unknown_outcome") return Retry::unknown_outcome;
  return Retry::never;
}

}  // namespace

void add_client_options(CLI::App& command, ClientOptions& options) {
  command.add_option("--address", options.address, "Where the server is; also from PRISM_ADDRESS")
      ->envname("PRISM_ADDRESS")
      ->type_name("HOST:PORT")
      ->default_str(options.address);
  command
      .add_option(
          "--namespace", options.namespace_name,
          "The namespace to work in; without it NAME is a namespace, or a topic that exactly one namespace serves")
      ->type_name("NAME");
  add_format(command, options.format);
}

std::shared_ptr<grpc::Channel> connect(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxFrameBytes);
  arguments.SetUserAgentPrefix(std::string("prism-cli/") + PRISM_VERSION);
  return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
}

void bind(grpc::ClientContext& context, const ClientOptions& options) {
  if (!options.namespace_name.empty()) context.AddMetadata("prism-namespace", options.namespace_name);
}

Error to_error(const grpc::Status& status, const ClientOptions& options) {
  Error error{static_cast<Code>(status.error_code()), {}, status.error_message(), {}, Retry::never, {}, {}};
  common::v1::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& any : details.details()) {
      common::v1::ErrorInfo info;
      if (!any.type_url().ends_with("/google.rpc.ErrorInfo") || !info.ParseFromString(any.value())) continue;
      error.reason = info.reason();
      for (const auto& [key, value] : info.metadata()) {
        if (key == "hint") {
          error.hint = value;
        } else if (key == "retry") {
          error.retry = to_retry(value);
        } else {
          error.metadata.emplace(key, value);
        }
      }
    }
  }
  if (error.reason.empty()) {
    error.reason = to_string(error.code);
    if (error.code == Code::unavailable) {
      error.message = "no server answers at " + options.address + " (" + status.error_message() + ")";
      error.hint = "start one with `prism dev FILE`, or say where it is with --address";
    }
  }
  return error;
}

Exit failed(const grpc::Status& status, const ClientOptions& options) {
  const Error error = to_error(status, options);
  print_error(error, options.format);
  if (error.reason == "UNAVAILABLE") return Exit::unreachable;  // not said by a server
  return status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? Exit::timed_out : Exit::failed;
}

}  // namespace prism::cli
