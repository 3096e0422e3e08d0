// Dropreel as a nested stack of yours. `make package` prints the URL. CfnInclude is no way: it does
// not know SAM's names, such as the alias of a function.
import { App, CfnOutput, CfnStack, Fn, Stack } from "aws-cdk-lib";

const app = new App();
const stack = new Stack(app, "dropreel");

const dropreel = new CfnStack(stack, "Dropreel", {
  templateUrl: app.node.tryGetContext("template-url") ?? "",
  // A parameter without a value here keeps its default.
  parameters: { DailyRenderLimit: "100" },
});

// The stack that `make token`, `make sweep` and `make teardown` take as STACK=, and an output of it.
new CfnOutput(stack, "DropreelStack", { value: Fn.select(1, Fn.split("/", dropreel.ref)) });
new CfnOutput(stack, "Videos", { value: dropreel.getAtt("Outputs.VideoBucket").toString() });
