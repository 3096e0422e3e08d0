// Dropreel as a nested stack of yours. `make package` prints the URL. CfnInclude is no way: it does
// not know SAM's names, such as the alias of a function.
import { App, CfnStack, Stack } from "aws-cdk-lib";

const app = new App();
const stack = new Stack(app, "dropreel");

const dropreel = new CfnStack(stack, "Dropreel", {
  templateUrl: app.node.getContext("template-url"),
  // A parameter without a value here keeps its default.
  parameters: { DailyRenderLimit: "100" },
});

// An output of Dropreel, for what stands beside it:
export const videos = dropreel.getAtt("Outputs.VideoBucket");
